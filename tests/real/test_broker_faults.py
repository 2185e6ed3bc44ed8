"""Kafka that dies, is away, or does what it is asked without an answer."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from clockwork.kafka.client import KafkaContext
from clockwork.node import app
from clockwork.node.resources import kafka_context
from clockwork.settings.model import Settings
from tests.support.faults import LostAnswers
from tests.support.load import Load
from tests.support.nodes import Cluster, node_here, now_ms
from tests.support.under_load import audit, under_load, until_delivers
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

Tell = Callable[[str], None]


async def test_a_broker_that_is_killed_and_comes_back_loses_and_repeats_nothing(cluster: Cluster, tell: Tell) -> None:
    # Killed in the middle of transactions. While it is away, topics that the node knows are accepted for, unknown ones
    # are not, and readiness names Kafka without taking the node out of service.
    topic, unknown = await cluster.topic(), await cluster.topic()
    node = await cluster.start()
    load = Load(cluster, [topic], cancel_share=0.2)
    load.clients = [node.client]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=0)
        await cluster.services.kill_kafka()
        try:

            async def named() -> bool:
                ready = await node.client.readyz()
                return ready.status == 200 and ready.body["details"]["kafka"] == "down"

            await until(named, "ready, and Kafka named as down")
            await load.create(cluster.body(topic, "while-away", in_ms=100))
            refused = await node.client.impatient.create(cluster.body(unknown, "unknown-while-away"))
            assert (refused.status, "Retry-After" in refused.headers) == (503, True)
            assert (await node.client.get(cluster.name, "while-away")).body["status"] == "pending"
        finally:
            await cluster.services.start_kafka()
        back_ms = now_ms()
        again_ms = await until_delivers(reader, load, since_ms=back_ms)
        tell(f"after Kafka answers again, all shards deliver again in {(again_ms - back_ms) / 1000:.2f} s")
    await audit(cluster, load, tell, topic)


async def test_lost_answers_of_kafka_make_nothing_twice(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tell: Tell
) -> None:
    # Half of them after the request was carried out, half instead of it. First every kind at random: a batch that comes
    # twice is recognised by its sequence number, a commit by its coordinator. Then no commit is answered at all, until
    # the slot gives up asking, and reads its marker.
    topic = await cluster.topic()
    lost = LostAnswers(monkeypatch)
    made = kafka_context

    def with_short_commits(settings: Settings) -> KafkaContext:
        kafka = made(settings)
        return replace(kafka, timeouts=replace(kafka.timeouts, commit_ms=300))

    monkeypatch.setattr(app, "kafka_context", with_short_commits)
    caplog.set_level(logging.WARNING, logger="clockwork")
    load = Load(cluster, [topic], guarantees=("exactly_once", "exactly_once", "at_least_once"))

    def unknown_commits() -> int:
        return sum(getattr(record, "event", None) == "slot.commit_unknown" for record in caplog.records)

    async with node_here(cluster) as (_, client):
        load.clients = [client]
        async with under_load(cluster, load, topic) as reader:
            lost.share = dict.fromkeys(
                ("AddPartitionsToTxnRequest", "ProduceRequest", "EndTxnRequest", "InitProducerIdRequest"), 0.15
            )

            async def enough() -> bool:
                await reader.read()
                return sum(lost.lost.values()) >= 100

            await until(enough, "100 answers lost")
            lost.share = {"EndTxnRequest": 1.0}

            async def unknown() -> bool:
                await reader.read()
                return unknown_commits() >= 6

            await until(unknown, "commits that nobody knows of")
            lost.share = {}
        await load.ask_all()
    tell(f"answers of Kafka lost: {dict(lost.lost)}; commits unknown: {unknown_commits()}")
    await audit(cluster, load, tell, topic)
