"""LMDB environments, shared within a process.

This package does not depend on features or interactions.
"""

from kirana.lmdb.environment import Environment, open_by_url, open_environment

__all__ = ["Environment", "open_by_url", "open_environment"]
