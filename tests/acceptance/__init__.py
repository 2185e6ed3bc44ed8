"""The service as its users run it: `python -m clockwork`, HTTP in, Kafka out, signals."""
