"""What users write: streams, features, windows, expressions, policies and pipelines, which lower to a plan."""
