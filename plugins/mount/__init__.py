"""TODO mount."""
