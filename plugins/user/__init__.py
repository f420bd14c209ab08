"""TODO user."""
