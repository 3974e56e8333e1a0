"""Handlers of the routes, one module per group of routes."""
