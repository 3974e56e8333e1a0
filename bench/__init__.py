"""Benchmarks by name: what Kirana does beside the floor, in one run, as a ratio."""
