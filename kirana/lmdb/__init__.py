"""LMDB environments, shared in a process. They know nothing of features or events."""

from kirana.lmdb.environment import Environment, open_by_url, open_environment

__all__ = ["Environment", "open_by_url", "open_environment"]
