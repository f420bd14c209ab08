"""TODO blkio."""
