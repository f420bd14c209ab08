"""The OCI runtime specification: a bundle's config.json as the container spec that all starts have."""
