"""Kirana: real-time ML serving for marketplaces. The library runs without Ray."""

__version__ = "0.1.0"
