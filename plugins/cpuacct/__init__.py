"""TODO cpuacct."""
