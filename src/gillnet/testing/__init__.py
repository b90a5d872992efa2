"""For tests of Gillnet and of its users: oracles that are slow and plainly right, and kits that check plug-ins."""
