"""The Kafka ports in memory: one broker for all of them."""
