"""Internal topics and their check at start, on a real Kafka."""

import re
from uuid import uuid4

import pytest

from clockwork.kafka.check import TRANSACTION_LOG, check_kafka
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.topics import create_internal_topics, create_topics, internal_topics
from tests.contract.kafka_fixtures import SHARDS, RealUnderTest, until_async

pytestmark = pytest.mark.real


async def test_internal_topics_are_made_once_and_checked(real_kafka: RealUnderTest) -> None:
    # One broker: nothing is wrong with it, and each topic that must not be lost is named.
    own = real_kafka.with_settings(cluster=f"cw{uuid4().hex[:8]}")
    for _ in range(2):
        await create_internal_topics(own.kafka)
    # Kafka makes its log of transactions at the first check, which looks for the coordinator of one.
    await until_async(lambda: _names_the_log_of_transactions(own.kafka))
    found = await check_kafka(own.kafka)
    assert found.problems == ()
    assert sorted(re.findall(r"[\w-]+ \(1\)", " ".join(found.warnings))) == sorted(
        [TRANSACTION_LOG + " (1)", *(f"{plan.name} (1)" for plan in internal_topics(own.kafka.settings) if plan.needed)]
    )
    more = await check_kafka(own.with_settings(shards=SHARDS + 1).kafka)
    assert len([line for line in more.problems if f"CLOCKWORK_SHARDS is {SHARDS + 1}" in line]) == 1
    none = await check_kafka(own.with_settings(cluster="no-such-cluster", instance_id="a").kafka)
    assert len([line for line in none.problems if "is missing" in line]) == 3


async def _names_the_log_of_transactions(kafka: KafkaContext) -> bool:
    return any(TRANSACTION_LOG in line for line in (await check_kafka(kafka)).warnings)


async def test_a_node_refuses_internal_topics_that_may_lose_what_was_acknowledged(real_kafka: RealUnderTest) -> None:
    unsafe = real_kafka.with_settings(cluster=f"cw{uuid4().hex[:8]}").kafka
    for plan in internal_topics(unsafe.settings):
        config = dict(plan.config) | {"unclean.leader.election.enable": "true"}
        await create_topics(unsafe, [plan.name], kafka_partitions=plan.kafka_partitions, config=config)
    problems = (await check_kafka(unsafe)).problems
    assert [line.split(":")[0] for line in problems] == [
        f"Kafka topic {plan.name}" for plan in internal_topics(unsafe.settings) if plan.needed
    ]
    assert all("unclean.leader.election.enable must be false" in line for line in problems)
