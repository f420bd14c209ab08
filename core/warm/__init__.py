"""The warm server: a process that has everything imported, and its workers, which do one command each."""
