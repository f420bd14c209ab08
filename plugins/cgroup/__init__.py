"""TODO cgroup."""
