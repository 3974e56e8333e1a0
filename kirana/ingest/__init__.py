"""Bulk loads of Parquet files into a feature store."""
