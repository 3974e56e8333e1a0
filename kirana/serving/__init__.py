"""From settings to running parts: placement, assembly, preflight checks, the Serve environment."""
