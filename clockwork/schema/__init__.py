"""JSON in and out: request bodies and answers."""
