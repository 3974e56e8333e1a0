"""The archive: every write of features, as Parquet files by group and day of event time."""
