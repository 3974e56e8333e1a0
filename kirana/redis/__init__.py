"""Clients of Redis: connections, cluster routing, URLs, errors. They know nothing of features."""
