"""Bulk loads of files into a feature store."""
