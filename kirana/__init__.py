"""Kirana: real-time ML serving for marketplaces. Everything here runs without Ray."""

__version__ = "0.1.0"
