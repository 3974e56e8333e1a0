"""A client of Cassandra, or of ScyllaDB, which speaks the same protocol."""
