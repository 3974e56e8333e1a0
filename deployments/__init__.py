"""Ray Serve deployments: thin wrappers of the objects in `kirana`."""
