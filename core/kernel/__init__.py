"""The only room that talks to the kernel: ctypes bindings, /proc and /sys."""
