"""Bundled pipelines: the scenarios that Gillnet is shown and measured with."""
