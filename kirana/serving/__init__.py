"""Settings, placement, assembly of parts, checks before a start, and the environment of Serve."""
