"""The doors besides Serve's front door: handles, direct ports, and the list of direct ports."""
