"""Fixtures of the contract suites."""

import os

from tests.contract.kafka_fixtures import kafka, memory_kafka, module_kafka, node, real_kafka
from tests.contract.store_fixtures import (
    a,
    b,
    dynamo_settings,
    dynamo_store,
    faults,
    jobs,
    pauses,
    pooled_settings,
    pooled_store,
    pooler,
    postgres_settings,
    postgres_store,
    registry,
    search,
    session_schema,
    session_tables,
    store,
    stores,
    transport,
)
from tests.support.pgbouncer import PROGRAM_VARIABLE

collect_ignore = [] if PROGRAM_VARIABLE in os.environ else ["test_store_pgbouncer.py"]

__all__ = [
    "a",
    "b",
    "dynamo_settings",
    "dynamo_store",
    "faults",
    "jobs",
    "kafka",
    "memory_kafka",
    "module_kafka",
    "node",
    "pauses",
    "pooled_settings",
    "pooled_store",
    "pooler",
    "postgres_settings",
    "postgres_store",
    "real_kafka",
    "registry",
    "search",
    "session_schema",
    "session_tables",
    "store",
    "stores",
    "transport",
]
