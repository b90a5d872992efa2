"""Gillnet catches fraud and bots on live event streams."""
