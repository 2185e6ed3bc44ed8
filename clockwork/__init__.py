"""Clockwork: deliver this payload to that Kafka topic at that time."""

__version__ = "0.1.0"
