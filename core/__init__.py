"""gocker: a container runtime whose every limit and isolation is a plug-in."""

__version__ = "0.1.0"
