"""The steps of a launch plan, one noun a module."""
