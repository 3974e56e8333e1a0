"""Bulk loading: from files of rows into a feature store."""
