"""The `gocker-oci` command: the command line that OCI runtimes have in common; the top layer, beside `gocker`."""
