"""TODO pids."""
