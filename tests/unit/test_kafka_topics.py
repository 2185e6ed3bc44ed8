"""The metadata cache."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import NodeNotReadyError

from clockwork.domain.record import OutRecord
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka import topics as kafka_topics
from clockwork.kafka.client import ASK_ANOTHER_S, LastAnswer
from clockwork.kafka.send import too_large
from clockwork.kafka.topics import (
    LIMIT_AGE_S_MAX,
    MISSING_AGE_S_MAX,
    TopicDirectory,
    TopicState,
    create_topics,
    internal_topics,
    safe_config,
)
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import ScriptedWire, kafka_for_script, settings_for_script


def directory_on(wire: ScriptedWire, **timeouts: int) -> TopicDirectory:
    return TopicDirectory(kafka_for_script(**timeouts), LastAnswer(), wire)


@in_virtual_time
async def test_a_known_topic_is_not_asked_for_again() -> None:
    wire = ScriptedWire()
    directory = directory_on(wire)
    for _ in range(3):
        assert (await directory.layout("orders")).leaders == (1, 1)
    assert wire.asked == ["metadata"]


@in_virtual_time
async def test_many_who_ask_at_once_cause_few_requests() -> None:
    wire = ScriptedWire()
    directory = directory_on(wire)
    layouts = await asyncio.gather(*(directory.layout(f"missing-{n % 50}") for n in range(500)))
    assert {layout.state for layout in layouts} == {TopicState.MISSING}
    assert len(wire.asked) <= 2


@in_virtual_time
async def test_a_broker_that_stands_still_holds_up_no_lookup_for_long() -> None:
    class OneStandsStill(ScriptedWire):
        async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
            if "metadata" not in self.asked:
                self.asked.append("metadata")
                await asyncio.Event().wait()
            return await super().request(request, node_id=node_id, coordinator=coordinator)

    wire = OneStandsStill()
    directory = directory_on(wire, lookup_ms=2_500)
    begun_s = asyncio.get_running_loop().time()
    assert (await directory.layout("orders")).state is TopicState.PRESENT
    assert asyncio.get_running_loop().time() - begun_s < 2 * ASK_ANOTHER_S
    assert wire.asked == ["metadata"] * 2


@in_virtual_time
async def test_a_look_since_now_goes_past_the_cache() -> None:
    wire = ScriptedWire()
    directory = directory_on(wire)
    await directory.layout("orders")
    del wire.topics["orders"]
    await asyncio.sleep(0.001)
    assert (await directory.layout("orders")).state is TopicState.PRESENT
    now_s = asyncio.get_running_loop().time()
    assert (await directory.layout("orders", since_s=now_s)).state is TopicState.MISSING


@in_virtual_time
async def test_a_missing_topic_is_found_a_second_after_it_was_made() -> None:
    wire = ScriptedWire()
    directory = directory_on(wire)
    assert (await directory.layout("new")).state is TopicState.MISSING
    wire.topics["new"] = codes.NONE
    await asyncio.sleep(MISSING_AGE_S_MAX - 0.01)
    assert (await directory.layout("new")).state is TopicState.MISSING
    await asyncio.sleep(0.02)
    assert (await directory.layout("new")).state is TopicState.PRESENT


@in_virtual_time
async def test_a_forbidden_topic_is_told_from_a_missing_one() -> None:
    wire = ScriptedWire()
    wire.topics["secret"] = codes.TOPIC_FORBIDDEN
    assert (await directory_on(wire).layout("secret")).state is TopicState.FORBIDDEN


@in_virtual_time
async def test_a_known_topic_stays_known_while_kafka_is_away_and_an_unknown_one_is_not_guessed() -> None:
    wire = ScriptedWire()
    directory = directory_on(wire, metadata_max_age_ms=0)
    await directory.layout("orders")
    wire.silent.add("metadata")
    assert (await directory.layout("orders")).state is TopicState.PRESENT
    with pytest.raises(BrokerUnavailable):
        await directory.layout("bills")
    # A caller that needs its present state is not given an old one.
    await asyncio.sleep(1)
    with pytest.raises(BrokerUnavailable):
        await directory.layout("orders", since_s=asyncio.get_running_loop().time())


@in_virtual_time
async def test_a_topic_whose_state_the_brokers_do_not_know_is_not_guessed() -> None:
    wire = ScriptedWire()
    wire.topics["new"] = codes.LEADER_NOT_AVAILABLE
    assert (await directory_on(wire).layout("new")).state is TopicState.UNSETTLED


@in_virtual_time
async def test_limits_are_read_once_and_again_after_a_refusal() -> None:
    wire = ScriptedWire()
    wire.configs = {"max.message.bytes": "1000", "min.insync.replicas": "2"}
    directory = directory_on(wire)
    assert (await directory.limits("orders")).record_bytes_max == 1_000
    wire.configs["max.message.bytes"] = "500"
    assert (await directory.limits("orders")).record_bytes_max == 1_000
    directory.forget_limits("orders")
    limits = await directory.limits("orders")
    assert (limits.record_bytes_max, limits.in_sync_min) == (500, 2)


@in_virtual_time
async def test_a_cached_limit_refuses_nothing_without_being_read_again() -> None:
    # It was raised, and the failed schedule armed again: that must not fail once more, by the cached limit.
    wire = ScriptedWire()
    wire.configs = {"max.message.bytes": "1000"}
    directory = directory_on(wire)
    large = OutRecord(topic="orders", key=b"k", value=b"x" * 5_000, headers=(), timestamp_ms=5)

    async def refused() -> bool:
        return await too_large(directory, large, since_s=asyncio.get_running_loop().time())

    # Those of one delivery are judged by one look.
    assert await refused()
    assert await refused()
    assert wire.asked == ["configs"]
    await asyncio.sleep(0.01)
    assert await refused()
    wire.configs["max.message.bytes"] = "10000"
    await asyncio.sleep(0.01)
    assert not await refused()
    assert wire.asked == ["configs"] * 3


@in_virtual_time
async def test_while_limits_are_read_again_others_go_on_with_the_old_ones_unless_they_need_the_present() -> None:
    wire = ScriptedWire()
    wire.configs = {"max.message.bytes": "1000"}
    directory = directory_on(wire)
    await directory.limits("orders")
    await asyncio.sleep(LIMIT_AGE_S_MAX + 1)
    now_s = asyncio.get_running_loop().time()
    wire.configs["max.message.bytes"] = "500"
    reader, other, strict = await asyncio.gather(
        directory.limits("orders"), directory.limits("orders"), directory.limits("orders", since_s=now_s)
    )
    assert (reader.record_bytes_max, other.record_bytes_max, strict.record_bytes_max) == (500, 1_000, 500)


@in_virtual_time
async def test_without_permission_to_read_limits_there_are_none() -> None:
    wire = ScriptedWire()
    wire.silent.add("configs")
    assert (await directory_on(wire).limits("orders")).record_bytes_max is None


@pytest.mark.parametrize(("replicas", "in_sync_min"), [(3, "2"), (2, "1"), (1, "1")])
def test_internal_topics_are_made_so_that_acknowledged_records_last(replicas: int, in_sync_min: str) -> None:
    plans = internal_topics(settings_for_script(commands=True))
    assert {plan.name: plan.kafka_partitions for plan in plans} == {
        **{"cw-commands": 16, "cw-shards": 4, "cw-deliveries": 64, "cw-dead-letters": 8},
        **{"cw-events": 8, "cw-minutes": 1},
    }
    for plan in plans:
        config = safe_config(plan, replicas=replicas)
        assert config["min.insync.replicas"] == in_sync_min
        assert config["unclean.leader.election.enable"] == "false"
        if plan.name == "cw-deliveries":
            assert int(config["segment.bytes"]) <= 8 * 1024 * 1024


class Admin:
    """Kafka's admin client, of a broker that the controller does not count at its first looks."""

    def __init__(self, *, looks_without_brokers: float, refusals: int = 0) -> None:
        self._looks_left = looks_without_brokers
        self._refusals_left = refusals
        self.replicas: set[int] = set()

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def describe_cluster(self) -> dict[str, Any]:
        self._looks_left -= 1
        if self._looks_left == 0:
            raise NodeNotReadyError  # the client has no broker that it could ask
        return {"brokers": [] if self._looks_left > 0 else [{}]}

    async def create_topics(self, topics: list[NewTopic], timeout_ms: int) -> Any:
        if self._refusals_left:
            self._refusals_left -= 1
            fenced = (codes.INVALID_REPLICATION_FACTOR, "All brokers are currently fenced.")
            return SimpleNamespace(topic_errors=[(topic.name, *fenced) for topic in topics])
        self.replicas = {topic.replication_factor for topic in topics}
        return SimpleNamespace(topic_errors=[(topic.name, codes.NONE) for topic in topics])

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"error_code": codes.NONE, "partitions": [{"leader": 1}]} for _ in names]


@in_virtual_time
async def test_topics_are_created_once_a_broker_is_counted_and_none_is_waited_for_for_ever() -> None:
    # A Kafka that has just come back: it answers, and to create something with no replica is an error of another kind.
    with pytest.MonkeyPatch.context() as patch:
        admin = Admin(looks_without_brokers=3)
        patch.setattr(kafka_topics, "AIOKafkaAdminClient", lambda **_: admin)
        await create_topics(kafka_for_script(), ["orders"])
        assert admin.replicas == {1}
        # A broker that stands still for a moment is fenced between the count and the request.
        admin = Admin(looks_without_brokers=0, refusals=2)
        await create_topics(kafka_for_script(), ["orders"])
        assert admin.replicas == {1}
        admin = Admin(looks_without_brokers=math.inf)
        with pytest.raises(BrokerUnavailable):
            await create_topics(kafka_for_script(), ["orders"])
        assert admin.replicas == set()
