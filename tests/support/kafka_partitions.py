"""Fewer Kafka partitions of the internal topics of tests' clusters: each is a folder with four files that a broker keeps
until it ends, and opens again, or repairs, when a test starts it again. Any numbers are correct."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

FEW: Final[Mapping[str, int]] = {
    # The slots of more incarnations share one.
    "DELIVERIES_KAFKA_PARTITIONS": 4,
    "DEAD_LETTER_KAFKA_PARTITIONS": 2,
    "COMMANDS_KAFKA_PARTITIONS": 4,
}


@contextmanager
def few_kafka_partitions() -> Iterator[None]:
    """Topics that this process makes in the block have as few."""
    # The template of forks has this module, and not always the service.
    from clockwork.kafka import topics

    before = {name: getattr(topics, name) for name in FEW}
    vars(topics).update(FEW)
    try:
        yield
    finally:
        vars(topics).update(before)
