"""A soak: a run at a steady rate through a real broker, watched for what grows. ``python -m bench.soak`` or ``make soak``."""
