"""Clients of Redis: connections, cluster routing, URLs and errors.

This package does not depend on features.
"""
