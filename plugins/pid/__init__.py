"""TODO pid."""
