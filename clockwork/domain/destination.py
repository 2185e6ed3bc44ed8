"""Destinations: what a delivery is sent to, and what can be missing, forbidden, away, rate-limited or paused as a whole.

Today every destination is a Kafka topic. A second kind (an HTTP endpoint) makes `Destination` a union; planning, back-off
and rate limits only compare and hash it.
"""

from typing import NewType, TypeAlias

Topic = NewType("Topic", str)
"""The name of a Kafka topic."""

Destination: TypeAlias = Topic
