"""The feature stream: writes that go through a topic of Kafka, and the state of its consumers."""
