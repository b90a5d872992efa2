"""The command line: thin commands over `gillnet.app`, and what they show."""
