"""Observability: one catalogue of metrics, with names, units and help."""
