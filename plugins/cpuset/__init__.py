"""TODO cpuset."""
