"""Destinations of deliveries. A destination as a whole can be missing, forbidden, away, rate-limited or paused.

Today every destination is a Kafka topic. A second kind (an HTTP endpoint) makes `Destination` a union; planning,
back-off and rate limits only compare and hash it.
"""

from typing import NewType, TypeAlias

Topic = NewType("Topic", str)
"""The name of a Kafka topic."""

Destination: TypeAlias = Topic
