"""TODO time."""
