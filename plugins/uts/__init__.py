"""TODO uts."""
