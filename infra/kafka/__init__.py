"""Rights of a node in Kafka."""
