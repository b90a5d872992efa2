"""Stores: what a run keeps for later. Offline: the history of accepted events, as Parquet."""
