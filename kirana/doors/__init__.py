"""What mounts the edge: the direct port with its list of endpoints, and Ray Serve handles."""
