"""What a node may do in Kafka."""
