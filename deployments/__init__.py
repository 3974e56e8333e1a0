"""Ray Serve deployments: thin shells around objects of `kirana`."""
