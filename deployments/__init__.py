"""Ray Serve deployments, one file each: thin shells around objects of `kirana`."""
