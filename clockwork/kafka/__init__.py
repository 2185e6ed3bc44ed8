"""Kafka: delivery, ownership of shards, wake-ups, commands, dead letters."""
