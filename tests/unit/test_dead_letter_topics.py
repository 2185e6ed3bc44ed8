"""Dead letters of clients with a topic of their own: where they go, and that none is lost or holds up its lane."""

import logging

import pytest

from clockwork.domain.dead_letters import DeadLetterTopics
from clockwork.domain.destination import Topic
from clockwork.domain.planning import DestinationWait
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import ClientId, EndState, Guarantee, RequestId, Retry, Row
from clockwork.errors import BrokerUnavailable, Refusal, RefusalCause
from clockwork.firing.dead_letters import FALLBACK_MS
from clockwork.ports.telemetry import NoTelemetry
from tests.support import builders
from tests.support.builders import DUE_MS, broken_row, row, schedule
from tests.support.engine import Engine
from tests.support.plans import BOUND_MS, fired, lane_row, plan, planner, refused

OWN = "shop-dead"
BOTH = pytest.mark.parametrize("guarantee", list(Guarantee))


def an_engine(*, topic: bool = True, record_bytes_max: int = 10_000) -> Engine:
    """Where `shop` has a topic of its own."""
    engine = Engine(dead_letter_topics={"shop": OWN})
    if topic:
        engine.kafka.create_topic(OWN, record_bytes_max=record_bytes_max)
    return engine


def worn_out(
    key: str, *, client_id: str = "shop", size: int = 10, guarantee: Guarantee = Guarantee.EXACTLY_ONCE
) -> Row:
    """One without attempts left, in the lane `lane`."""
    of = schedule(
        schedule_key=key, client_id=client_id, ordering_key="lane", task_data=b"x" * size, guarantee=guarantee
    )
    return row(of, retry=Retry(at_ms=DUE_MS, epoch=0, attempts=8))


def behind(*, guarantee: Guarantee = Guarantee.EXACTLY_ONCE) -> Row:
    return row(schedule(schedule_key="behind", ordering_key="lane", guarantee=guarantee))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(NoTelemetry, "dead_letter", lambda _, where: found.append(where))
    return found


def back_offs(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The begins and ends of back-offs, and the topics given up, as logged."""
    events = [str(vars(record)["event"]) for record in caplog.records if record.name.startswith("clockwork")]
    return [event for event in events if event in {"topic.waits", "topic.back", "topic.given_up"}]


async def passes(engine: Engine, *rows: Row, count: int = 1) -> None:
    await engine.put(*rows)
    lease = await engine.own()
    for number in range(count):
        engine.at_due(late_ms=number * 10)
        await engine.one_pass(lease)
    await lease.cleanup.finish()


@BOTH
async def test_a_dead_letter_goes_to_its_clients_own_topic_and_without_one_to_the_clusters(
    guarantee: Guarantee, counted: list[str]
) -> None:
    engine = an_engine()
    await passes(engine, worn_out("a", guarantee=guarantee), worn_out("b", client_id="bank", guarantee=guarantee))
    assert (engine.arrived(OWN), engine.arrived(engine.kafka.dead_letters_topic)) == (["a"], ["b"])
    assert counted == ["client", "cluster"]


@BOTH
@pytest.mark.parametrize("why", ["missing", "forbidden", "small", "away", "invalid"])
async def test_a_dead_letter_that_its_clients_topic_refuses_goes_to_the_clusters_in_the_same_pass_and_its_lane_goes_on(
    why: str, guarantee: Guarantee, counted: list[str]
) -> None:
    engine = an_engine(topic=why not in {"missing", "forbidden"}, record_bytes_max=500 if why == "small" else 10_000)
    if why == "forbidden":
        engine.kafka.create_topic(OWN, forbidden=True)

    def refuse(record: OutRecord) -> Refusal | None:
        if record.topic != OWN or why not in {"away", "invalid"}:
            return None
        return Refusal(
            cause=RefusalCause.TRANSIENT if why == "away" else RefusalCause.RECORD, reason=why, destination=OWN
        )

    engine.kafka.refuse = refuse
    failed, next_one = worn_out("a", size=1_000, guarantee=guarantee), behind(guarantee=guarantee)
    await passes(engine, failed, next_one)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["a"]
    assert engine.arrived() == ["behind"]
    assert counted == ["turned_away"]
    ended = await engine.store.read_outcome(ClientId("shop"), failed.schedule.schedule_key, failed.position)
    assert ended is not None
    assert ended.state is EndState.FAILED
    assert not engine.store.rows


async def test_a_send_that_is_not_acknowledged_leads_to_the_clusters_topic_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = an_engine()
    send = engine.publisher.send

    async def lost(record: OutRecord) -> object:
        if record.topic == OWN:
            raise BrokerUnavailable
        return await send(record)

    monkeypatch.setattr(engine.publisher, "send", lost)
    await passes(engine, worn_out("a", guarantee=Guarantee.AT_LEAST_ONCE))
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["a"]


async def test_one_record_that_is_too_large_for_its_clients_topic_takes_no_other_with_it(counted: list[str]) -> None:
    engine = an_engine(record_bytes_max=500)
    await passes(engine, worn_out("small"), worn_out("large", size=1_000), worn_out("last"))
    assert engine.arrived(OWN) == ["small", "last"]
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["large"]
    assert sorted(counted) == ["client", "client", "turned_away"]


async def test_a_missing_topic_is_left_alone_for_a_while_and_used_once_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = an_engine(topic=False)
    asked: list[str] = []
    known_refusal = engine.kafka.known_refusal

    def asking(record: OutRecord, kafka_partition: int) -> Refusal | None:
        asked.append(record.topic)
        return known_refusal(record, kafka_partition)

    monkeypatch.setattr(engine.kafka, "known_refusal", asking)
    await passes(engine, worn_out("a"))
    assert asked.count(OWN) == 1
    await passes(engine, worn_out("b"))
    assert asked.count(OWN) == 1
    engine.kafka.create_topic(OWN)
    await engine.put(worn_out("c"))
    lease = await engine.own()
    engine.at_due(late_ms=60_000)
    await engine.one_pass(lease)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["a", "b"]
    assert engine.arrived(OWN) == ["c"]
    assert back_offs(caplog) == ["topic.waits", "topic.back"]


async def test_a_clients_topic_that_is_missing_for_long_is_given_up_by_deliveries_to_it_and_never_by_dead_letters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine(dead_letter_topics={"shop": OWN}, topic_wait_ms=20_000)
    lease = await engine.own()

    async def events_after(found: Row, late_ms: int) -> list[str]:
        await engine.put(found)
        engine.at_due(late_ms=late_ms)
        await engine.one_pass(lease)
        return back_offs(caplog)

    for number in range(4):
        assert await events_after(worn_out(f"letter-{number}"), number * 15_000) == ["topic.waits"]
    delivery = row(schedule(schedule_key="delivery", topic=OWN))
    assert await events_after(delivery, 60_000) == ["topic.waits", "topic.given_up"]
    # A dead letter that is refused meanwhile does not undo that.
    assert await events_after(worn_out("last"), 75_000) == ["topic.waits", "topic.given_up"]
    assert engine.destination_waits.at(DUE_MS + 75_001)[Topic(OWN)].given_up


@BOTH
async def test_dead_letters_wait_in_place_only_while_neither_topic_takes_them(guarantee: Guarantee) -> None:
    engine = an_engine()
    refusing = {OWN, engine.kafka.dead_letters_topic}
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.TRANSIENT, reason="leader_away", destination=record.topic)
        if record.topic in refusing
        else None
    )
    await engine.put(worn_out("a", guarantee=guarantee), behind(guarantee=guarantee))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    assert (engine.arrived(), len(engine.store.rows)) == ([], 2)
    refusing.clear()
    engine.at_due(late_ms=10_000)
    await engine.one_pass(lease)
    found = [*engine.arrived(OWN), *engine.arrived(engine.kafka.dead_letters_topic)]
    assert (found, engine.arrived()) == (["a"], ["behind"])


@BOTH
async def test_the_clusters_topic_is_back_with_the_first_dead_letter_that_it_takes(
    guarantee: Guarantee, caplog: pytest.LogCaptureFixture
) -> None:
    # Else its back-off would go on growing from where it stood, and no line would say that it is over.
    caplog.set_level(logging.INFO)
    engine = Engine()
    down = True
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.TRANSIENT, reason="leader_away", destination=record.topic) if down else None
    )
    lease = await engine.own()
    await engine.put(worn_out("a", guarantee=guarantee))
    engine.at_due()
    await engine.one_pass(lease)
    down = False
    engine.at_due(late_ms=10_000)
    await engine.one_pass(lease)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["a"]
    assert back_offs(caplog) == ["topic.waits", "topic.back"]


@BOTH
@pytest.mark.parametrize("cause", [RefusalCause.TRANSIENT, RefusalCause.RECORD])
async def test_a_dead_letter_too_large_for_its_clients_topic_waits_for_the_clusters_and_is_not_offered_at_each_pass(
    cause: RefusalCause, guarantee: Guarantee
) -> None:
    engine = an_engine(record_bytes_max=500)
    cluster = engine.kafka.dead_letters_topic
    offered: list[str] = []

    def refuse(record: OutRecord) -> Refusal | None:
        offered.append(record.topic)
        return Refusal(cause=cause, reason="full", destination=cluster) if record.topic == cluster else None

    engine.kafka.refuse = refuse
    await engine.put(worn_out("a", size=1_000, guarantee=guarantee))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    offered.clear()
    engine.at_due(late_ms=5)
    assert not (await engine.one_pass(lease)).more_now
    assert offered == []
    engine.kafka.refuse = lambda _: None
    engine.at_due(late_ms=5_000)
    await engine.one_pass(lease)
    assert engine.arrived(cluster) == ["a"]
    assert lease.fallback_until_ms
    await engine.one_pass(lease)
    assert not lease.fallback_until_ms


async def test_a_dead_letter_that_neither_topic_takes_is_left_to_a_cancel() -> None:
    engine = an_engine(record_bytes_max=500)
    cluster = engine.kafka.dead_letters_topic
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.TRANSIENT, reason="away", destination=cluster) if record.topic == cluster else None
    )
    waiting_row = worn_out("a", size=1_000)
    await engine.put(waiting_row)
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    await engine.store.hold(waiting_row.name, RequestId("a-cancel"))
    engine.at_due(late_ms=5)
    await engine.one_pass(lease)
    found = await engine.store.read_row(waiting_row.name)
    assert isinstance(found, Row)
    assert found.retry is not None
    assert found.retry.at_ms > lease.frontier_ms


async def test_a_dead_letter_refused_for_its_content_is_offered_to_its_clients_topic_again_after_a_while() -> None:
    engine = an_engine(record_bytes_max=500)
    cluster = engine.kafka.dead_letters_topic
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.TRANSIENT, reason="away", destination=record.topic)
        if record.topic == cluster
        else None
    )
    await engine.put(worn_out("a", size=1_000))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    assert len(lease.fallback_until_ms) == 1
    engine.kafka.delete_topic(OWN)
    engine.kafka.create_topic(OWN, record_bytes_max=10_000)
    engine.at_due(late_ms=FALLBACK_MS)
    await engine.one_pass(lease)
    assert engine.arrived(OWN) == ["a"]


async def test_a_topic_that_gets_deliveries_too_holds_up_these_and_not_the_dead_letters() -> None:
    engine = an_engine(topic=False)
    delivery = row(schedule(schedule_key="delivery", topic=OWN))
    await passes(engine, worn_out("a"), delivery)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["a"]
    assert await engine.store.read_row(delivery.name) is not None


async def test_a_row_that_cannot_be_read_goes_to_its_clients_topic_if_that_much_of_it_can(counted: list[str]) -> None:
    engine = an_engine()
    known = broken_row(client_id="shop", schedule_key="known")
    for each in (known, broken_row()):
        engine.store.put_by_hand(each)
    await passes(engine)
    (record,) = engine.kafka.read_committed(OWN)
    assert record.value == known.raw
    assert len(engine.kafka.read_committed(engine.kafka.dead_letters_topic)) == 1
    assert counted == ["client", "cluster"]


# --- what is planned


def waiting(*topics: str) -> dict[Topic, DestinationWait]:
    return {Topic(topic): DestinationWait(until_ms=BOUND_MS + 500, reason="leader_away") for topic in topics}


@pytest.mark.parametrize(
    ("waits", "fires"),
    [
        (["c-dead-letters"], {"bank"}),
        (["bank-dead"], {"bank", "shop"}),
        (["c-dead-letters", "bank-dead"], set[str]()),
    ],
)
def test_a_dead_letter_waits_for_the_clusters_topic_only_if_it_would_go_there(
    waits: list[str], fires: set[str]
) -> None:
    rows = [
        row(schedule(client_id=client, ordering_key=client), retry=refused(DUE_MS, attempts=8))
        for client in ("bank", "shop")
    ]
    planned = plan(rows, planner(destination_waits=waiting(*waits)))
    assert {each.schedule.client_id for each in fired(planned)} == fires  # type: ignore[union-attr]


def test_the_rate_limit_of_a_topic_holds_up_no_dead_letter() -> None:
    paced = {Topic("bank-dead"): DestinationWait(until_ms=BOUND_MS + 500, reason="pace", rate_limited=True)}
    letters = DeadLetterTopics(of_cluster=Topic("c"), of_clients={ClientId(builders.CLIENT): Topic("bank-dead")})
    planner_ = planner(destination_waits=paced | waiting("c"))
    planner_.dead_letter_topics = letters
    assert len(plan([lane_row("a", retry=refused(DUE_MS, attempts=8))], planner_).deliveries) == 1
