"""What talks to the outside: DynamoDB, Kafka, metrics and logs. One file per outside thing and port."""
