"""Built-in plug-ins; found through the same entry points as third-party ones."""
