"""Clockwork: deliver this payload to that Kafka topic at that time."""
