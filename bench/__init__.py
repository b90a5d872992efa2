"""Measurements of Gillnet beside other ways to do the same work. Not shipped in the package."""
