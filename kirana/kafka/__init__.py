"""Clients of Kafka: URLs, connections, topics, partitions and errors."""
