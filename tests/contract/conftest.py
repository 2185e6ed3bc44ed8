"""Fixtures of the contract suites."""

from tests.contract.kafka_fixtures import kafka, memory_kafka, module_kafka, node, real_kafka
from tests.contract.store_fixtures import dynamo_settings, dynamo_store, faults, store

__all__ = [
    "dynamo_settings",
    "dynamo_store",
    "faults",
    "kafka",
    "memory_kafka",
    "module_kafka",
    "node",
    "real_kafka",
    "store",
]
