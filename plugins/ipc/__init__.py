"""TODO ipc."""
