"""Fixtures of the contract suites."""

from tests.contract.kafka_fixtures import kafka, memory_kafka, module_kafka, node, real_kafka
from tests.contract.store_fixtures import (
    a,
    b,
    dynamo_settings,
    dynamo_store,
    faults,
    pauses,
    search,
    session_tables,
    store,
    stores,
    transport,
)

__all__ = [
    "a",
    "b",
    "dynamo_settings",
    "dynamo_store",
    "faults",
    "kafka",
    "memory_kafka",
    "module_kafka",
    "node",
    "pauses",
    "real_kafka",
    "search",
    "session_tables",
    "store",
    "stores",
    "transport",
]
