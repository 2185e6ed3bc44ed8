"""Dead letters over HTTP: the open ones, the fields for each right, and that a repeated retry retries once."""

import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from clockwork.client.consumer import DeadLetter, delivery_of
from clockwork.domain.dead_letters import dead_letter
from clockwork.domain.record import OutRecord, dead_letter_of
from clockwork.domain.rights import Right
from clockwork.domain.schedule import Failure, Receipt, Row
from tests.support import builders
from tests.support.builders import TOPIC
from tests.support.engine import Engine
from tests.unit.service import ENDED, Service, a_principal, gate_of, open_service
from tests.unit.test_cli_admin import admin

FAILED = ENDED["failed"]


async def asked(service: Service, path: str, key: str | None = None) -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session, session.get(path) as answer:
        return answer.status, await answer.json()


async def letters(service: Service, path: str = "/admin/dead-letters", key: str | None = None) -> list[Any]:
    status, document = await asked(service, path, key)
    assert status == 200, document
    found: list[Any] = document["deadLetters"]
    return found


async def test_a_dead_letter_is_open_until_its_schedule_is_retried_and_a_repeated_retry_retries_once() -> None:
    async with open_service() as service:
        await service.seed("shop", "bank")
        (shop,) = (each for each in await letters(service) if each["clientId"] == "shop")
        assert (shop["open"], shop["status"], shop["reason"]) == (True, "failed", "expired")
        place = [str(shop["partition"]), str(shop["offset"])]
        listed = await admin(service, "dead-letters", "list", "--client", "shop", "--json")
        assert json.loads(listed.output) == shop
        assert json.loads((await admin(service, "dead-letters", "show", *place)).output) == shop
        await admin(service, "dead-letters", "retry", *place)
        # Another operator who had seen it open at the same time.
        async with aiohttp.ClientSession(service.url) as session:
            condition = {"If-Match": f'"{shop["version"]}"'}
            async with session.post(f"/schedule/shop/{FAILED}/retry", headers=condition) as answer:
                assert answer.status == 200
        rows = [row for row in service.engine.store.rows.values() if row.schedule.schedule_key == FAILED]  # type: ignore[union-attr]
        assert len(rows) == 1
        refused = await admin(service, "dead-letters", "retry", *place, code=5)
        assert "is pending" in refused.output
        (again,) = (each for each in await letters(service) if each["clientId"] == "shop")
        assert (again["open"], again["status"]) == (False, "pending")
        assert "armed, 0 refused" in (await admin(service, "dead-letters", "retry", "--all")).output
        assert not any(each["open"] for each in await letters(service))


async def test_what_is_discarded_leaves_the_list_of_those_that_are_open_and_stays_in_the_list_of_all() -> None:
    async with open_service() as service:
        await service.seed("shop", "bank", "mail")

        async def listed(*more: str) -> dict[str, bool]:
            lines = (await admin(service, "dead-letters", "list", "--json", *more)).output.splitlines()
            found = {each["clientId"]: each for each in map(json.loads, lines)}
            assert all(each["open"] is not ("discardedAt" in each) for each in found.values())
            return {client: each["open"] for client, each in found.items()}

        (shop,) = (each for each in await letters(service) if each["clientId"] == "shop")
        before = await asked(service, f"/schedule/shop/{FAILED}")
        place = [str(shop["partition"]), str(shop["offset"])]
        for _ in range(2):
            assert (await admin(service, "dead-letters", "discard", *place)).output == f"discarded: shop {FAILED}\n"
        assert await asked(service, f"/schedule/shop/{FAILED}") == before
        assert await listed() == {"bank": True, "mail": True}
        assert await listed("--all") == {"bank": True, "mail": True, "shop": False}
        assert "discarded" in (await admin(service, "dead-letters", "list", "--all")).output
        told = await admin(service, "dead-letters", "discard", "--all", "--client", "bank")
        assert told.output == "1 discarded, 0 refused\n"
        # Neither is armed with all others; who names one of them has changed their mind.
        assert (await admin(service, "dead-letters", "retry", "--all")).output == "1 armed, 0 refused\n"
        assert await listed() == {}
        assert (await admin(service, "dead-letters", "retry", *place)).output == f"armed: shop {FAILED}\n"
        refused = await admin(service, "dead-letters", "discard", *place, code=5)
        assert "not open" in refused.output


async def acted(session: aiohttp.ClientSession, what: str, item: Any) -> tuple[int, Any]:
    """The result of a batch of one."""
    async with session.post(f"/admin/dead-letters/{what}", json={"deadLetters": [item]}) as answer:
        assert answer.status == 200
        (result,) = (await answer.json())["results"]
        return result["status"], result


async def test_many_are_retried_each_alone_and_the_same_batch_again_arms_none_twice() -> None:
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop", "bank")
        named = [
            {name: each[name] for name in ("clientId", "scheduleKey", "deliveryId")} for each in await letters(service)
        ]
        await acted(session, "discard", named[0])
        wrong = [{**named[0], "deliveryId": "another"}, {**named[0], "scheduleKey": "unknown"}, {"clientId": "shop"}]
        batch = {"deadLetters": [*named, *wrong]}

        async def retried() -> list[Any]:
            async with session.post("/admin/dead-letters/retry", json=batch) as answer:
                results: list[Any] = (await answer.json())["results"]
                return results

        first, again = await retried(), await retried()

        # Who names a discarded one has changed their mind.
        assert [each["status"] for each in first] == [200, 200, 409, 404, 400]
        assert [each["schedule"]["status"] for each in first[:2]] == ["pending", "pending"]
        assert (first[2]["type"], first[2]["reason"]) == ("urn:clockwork:problem:dead-letter-not-open", "pending")
        assert [each["status"] for each in again] == [409, 409, 409, 404, 400]
        present = [await asked(service, f"/schedule/{each['clientId']}/{FAILED}") for each in named]
        assert present == [(200, each["schedule"]) for each in first[:2]]


async def test_letters_are_acted_on_by_those_who_may_alone() -> None:
    keys = {
        "operator": a_principal(Right.OPERATE, clients="shop"),
        "maker": a_principal(Right.CREATE, clients="shop"),
        "admin": a_principal(Right.ADMIN, clients="shop"),
        "elsewhere": a_principal(*Right, clients="bank"),
    }
    item = {"clientId": "shop", "scheduleKey": "a", "deliveryId": "d"}
    async with open_service(gate=gate_of(keys)) as service:
        found = {}
        for key in keys:
            async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:
                found[key] = [(await acted(session, what, item))[0] for what in ("retry", "discard")]

    assert found == {"operator": [404, 404], "maker": [404, 403], "admin": [403, 403], "elsewhere": [403, 403]}


async def test_a_discard_is_refused_where_something_else_stands_under_the_key_or_nothing() -> None:
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        await service.seed("shop")
        (letter,) = await letters(service)
        named = {name: letter[name] for name in ("clientId", "scheduleKey", "deliveryId")}

        async def discard(**changes: Any) -> tuple[int, Any]:
            return await acted(session, "discard", named | changes)

        status, document = await discard(deliveryId="another")
        assert (status, document["reason"], document["type"]) == (
            409,
            "failed",
            "urn:clockwork:problem:dead-letter-not-open",
        )
        assert "another delivery" in document["detail"]
        status, document = await discard(scheduleKey=ENDED["delivered"])
        assert (status, document["reason"]) == (409, "delivered")
        assert (await discard(scheduleKey="unknown"))[0] == 404
        for wrong, field in (({"deliveryId": ""}, "deliveryId"), ({"clientId": "a b"}, "clientId"), ({"x": 1}, "x")):
            status, document = await discard(**wrong)
            assert (status, document["errors"][0]["field"]) == (400, field)
        assert (await letters(service))[0]["open"] is True
        status, document = await discard()
        discarded = {"deadLetter": named | {"discardedAt": service.engine.clock.now_ms()}}
        assert (status, document) == (200, {"status": 200, **discarded})
        # Failed, and nothing else is known of it: not that it was another delivery.
        outcomes = service.engine.store.outcomes
        (place,) = (at for at, outcome in outcomes.items() if outcome.schedule_key == FAILED)
        outcomes[place] = replace(outcomes[place], schedule=None)
        status, document = await discard()
        assert (status, document["reason"]) == (409, "failed")
        assert "cannot be read" in document["detail"]
        assert "with another" not in document["detail"]


async def test_of_a_schedule_that_failed_twice_only_the_last_dead_letter_is_open() -> None:
    async with open_service() as service:
        await service.seed("shop")
        await admin(service, "dead-letters", "retry", "--all")
        service.engine.clock.set_ms(service.engine.clock.now_ms() + 60_000)
        await service.deliver()
        found = sorted(await letters(service), key=lambda letter: int(letter["at"]))
        assert [(each["scheduleKey"], each["status"]) for each in found] == [(FAILED, "failed")] * 2
        assert [each["open"] for each in found] == [False, True]


async def test_pages_follow_each_other_and_an_offset_without_a_dead_letter_is_not_found() -> None:
    async with open_service() as service:
        await service.seed("shop", "bank", "mail")
        found, cursor = [], ""
        while True:
            _, page = await asked(service, f"/admin/dead-letters?limit=1{cursor}")
            found += page["deadLetters"]
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        assert sorted(each["clientId"] for each in found) == ["bank", "mail", "shop"]
        assert (await asked(service, "/admin/dead-letters/0/999"))[0] == 404
        for wrong, field in (
            ("/-1/0", "partition"),
            ("/0/x", "offset"),
            ("?cursor=e30x", "cursor"),
            ("?cursor=W10=", "cursor"),
            ("?cursor=WyJjbG9ja3dvcmstZGVhZC1sZXR0ZXJzIix7IjAiOi0xfV0=", "cursor"),
            ("?limit=0", "limit"),
        ):
            status, document = await asked(service, f"/admin/dead-letters{wrong}")
            assert (status, document["errors"][0]["field"]) == (400, field)


async def test_what_a_client_entrusted_to_us_is_shown_only_to_keys_that_may_read_its_schedules() -> None:
    keys = {
        "service": a_principal(Right.ADMIN, clients="*"),
        "shop": a_principal(Right.ADMIN, Right.READ, clients="shop"),
    }
    async with open_service() as service:
        await service.seed("shop", "bank")
        engine = service.engine
    async with open_service(engine, gate=gate_of(keys)) as service:
        for key, seen in (("service", set()), ("shop", {"shop"})):
            found = await letters(service, key=key)
            assert {each["clientId"] for each in found} == {"shop", "bank"}
            assert {each["clientId"] for each in found if "value" in each or "headers" in each} == seen


async def test_viewers_and_operators_see_the_letters_of_the_clients_that_they_cover_and_no_others() -> None:
    keys = {
        "viewer": a_principal(Right.READ, clients="shop"),
        "operator": a_principal(Right.OPERATE, clients="shop"),
        "everyone": a_principal(Right.READ, Right.OPERATE, clients="*"),
        "admin": a_principal(Right.ADMIN, clients="none"),
    }
    async with open_service() as service:
        await service.seed("shop", "bank")
        engine = service.engine
        unknown = OutRecord(topic=engine.kafka.dead_letters_topic, key=None, value=b"x", headers=(), timestamp_ms=7)
        engine.kafka.append(unknown, 0)
    async with open_service(engine, gate=gate_of(keys)) as service:
        every = await letters(service, key="admin")
        assert {each.get("clientId") for each in every} == {"shop", "bank", None}
        for key, clients, content in (
            ("viewer", {"shop"}, True),
            ("operator", {"shop"}, False),
            ("everyone", {"shop", "bank"}, True),
        ):
            found = await letters(service, key=key)
            assert {each["clientId"] for each in found} == clients
            assert {"value" in each for each in found} == {content}
        for each in every:
            status, _ = await asked(service, f"/admin/dead-letters/{each['partition']}/{each['offset']}", key="viewer")
            assert status == (200 if each.get("clientId") == "shop" else 403)


async def test_a_record_of_anybody_elses_is_shown_as_what_it_is() -> None:
    async with open_service() as service:
        topic = service.engine.kafka.dead_letters_topic
        record = OutRecord(
            topic=topic, key=None, value=b"\xff", headers=(("clockwork-client-id", b"\xff"),), timestamp_ms=7
        )
        service.engine.kafka.append(record, 0)
        (found,) = await letters(service)
        assert found == {
            "deadLetterTopic": topic,
            "partition": 0, "offset": 0, "at": 7, "open": False, "headers": {}, "value": "/w==", "valueEncoding": "base64",
        }  # fmt: skip


async def with_own_topic() -> Engine:
    """One dead letter of `bank` and one of `mail` in the cluster's topic, and one of `shop` in its own."""
    engine = Engine(dead_letter_topics={"shop": "shop-dead", "mail": "mail-dead", "other": "shop-dead"})
    engine.kafka.create_topic("shop-dead")
    async with open_service(engine) as service:
        await service.seed("shop", "bank", "mail")
    return engine


async def test_dead_letters_of_all_topics_are_listed_one_after_the_other_or_those_of_one() -> None:
    async with open_service(await with_own_topic()) as service:
        cluster, own = "clockwork-dead-letters", "shop-dead"
        found, cursor, topics = [], "", []
        while True:
            _, page = await asked(service, f"/admin/dead-letters?limit=1{cursor}")
            topics.append({each["deadLetterTopic"] for each in page["deadLetters"]})
            found += [(each["deadLetterTopic"], each["clientId"]) for each in page["deadLetters"]]
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        assert found[-1] == (own, "shop")
        assert sorted(found) == [(cluster, "bank"), (cluster, "mail"), (own, "shop")]
        for topic, clients in ((cluster, {"bank", "mail"}), (own, {"shop"}), ("mail-dead", set())):
            status, page = await asked(service, f"/admin/dead-letters?deadLetterTopic={topic}")
            assert (status, page["cursor"]) == (200, None)
            assert {each["clientId"] for each in page["deadLetters"]} == clients
            listed = await admin(service, "dead-letters", "list", "--in", topic, "--json")
            assert {json.loads(line)["clientId"] for line in listed.output.splitlines()} == clients


async def test_a_dead_letter_in_a_clients_own_topic_is_shown_and_retried_by_its_offset_there() -> None:
    async with open_service(await with_own_topic()) as service:
        (shop,) = await letters(service, "/admin/dead-letters?deadLetterTopic=shop-dead")
        place = [str(shop["partition"]), str(shop["offset"]), "--in", "shop-dead"]
        assert json.loads((await admin(service, "dead-letters", "show", *place)).output) == shop
        await admin(service, "dead-letters", "retry", *place)
        assert "2 armed, 0 refused" in (await admin(service, "dead-letters", "retry", "--all")).output


async def test_no_other_topic_is_read_with_the_rights_of_a_node() -> None:
    async with open_service(await with_own_topic()) as service:
        for path in ("?deadLetterTopic=orders", "/0/0?deadLetterTopic=orders", "?deadLetterTopic=a%20b"):
            status, document = await asked(service, f"/admin/dead-letters{path}")
            assert (status, document["errors"][0]["field"]) == (400, "deadLetterTopic")
        _, page = await asked(service, "/admin/dead-letters?limit=1")
        for wrong in (
            f"deadLetterTopic=shop-dead&cursor={page['cursor']}",
            "cursor=WyJvcmRlcnMiLHt9XQ==",
        ):
            status, document = await asked(service, f"/admin/dead-letters?{wrong}")
            assert (status, document["errors"][0]["field"]) == (400, "cursor")


async def test_a_clients_topic_that_may_not_be_read_is_said_to_be_unavailable() -> None:
    engine = await with_own_topic()
    engine.kafka.delete_topic("shop-dead")
    engine.kafka.create_topic("shop-dead", forbidden=True)
    async with open_service(engine) as service:
        assert (await asked(service, "/admin/dead-letters?deadLetterTopic=shop-dead"))[0] == 503
        listed = await admin(service, "dead-letters", "list", code=9)
        assert "bank" in listed.output
        assert "mail" in listed.output


@pytest.mark.parametrize("attempts", [b"x", b"\xff", b"9" * 30, "٣".encode()])
def test_a_number_that_is_none_is_left_out(attempts: bytes) -> None:
    receipt = Receipt(kafka_partition=0, offset=0, at_ms=1)
    headers = [("clockwork-attempts", attempts)]
    assert dead_letter(receipt=receipt, key=None, value=b"", headers=headers).attempts is None


@pytest.mark.parametrize("refusal", [None, "record_too_large"])
def test_a_dead_letter_tells_the_last_refusal_if_there_was_one(refusal: str | None) -> None:
    failure = Failure(reason="attempts_exhausted", attempts=8, last_refusal=refusal)
    record = dead_letter_of(builders.schedule(), failure, topic="dead", now_ms=1)
    read = dead_letter(receipt=builders.receipt(), key=record.key, value=record.value or b"", headers=record.headers)
    assert (read.reason, read.last_refusal) == ("attempts_exhausted", refusal)
    assert delivery_of(record.headers).dead_letter == DeadLetter(
        topic=builders.TOPIC, reason="attempts_exhausted", attempts=8, last_refusal=refusal
    )


async def test_a_dead_letter_of_a_jobs_run_is_open_until_it_is_run_again_and_that_happens_once() -> None:
    # A schedule with the job's id as its key has nothing to do with it.
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        expires = {"topic": TOPIC, "deadline": 0, "onLate": "dead_letter"}
        job = {"clientId": "shop", "jobId": "a", "taskData": {"n": 1}, "delivery": expires}
        every = {"trigger": {"type": "fixed_rate", "everyMs": 3_600_000}, "misfire": {"policy": "fire_once"}}
        async with session.post("/jobs", json=job | every) as answer:
            assert answer.status == 201, await answer.text()
            due_ms = (await answer.json())["nextRun"]["dueAt"]
        service.engine.clock.set_ms(due_ms + 1)
        await service.deliver()
        (letter,) = await letters(service)
        assert (letter["open"], letter["jobId"], letter["reason"]) == (True, "a", "expired")
        assert "status" not in letter
        place = [str(letter["partition"]), str(letter["offset"])]
        refused = await admin(service, "dead-letters", "discard", *place, code=5)
        assert "retention of its log" in refused.output
        assert (await admin(service, "dead-letters", "discard", "--all")).output == "0 discarded, 0 refused\n"
        assert (await admin(service, "dead-letters", "retry", *place)).output == "armed: shop a\n"
        async with session.get("/jobs/shop/a/logs") as answer:
            runs = (await answer.json())["runs"]
        manual = [each for each in runs if each["kind"] == "manual"]
        assert [each["status"] for each in manual] == ["armed"]
        by_hand = [row for row in service.engine.store.rows.values() if row.run and row.run.kind == "manual"]
        assert [row.schedule.task_data for row in by_hand if isinstance(row, Row)] == [b'{"n":1}']
        (again,) = await letters(service)
        assert not again["open"]
        await admin(service, "dead-letters", "retry", *place, code=5)


async def a_failed_run(service: Service, task_data: Any, **more: Any) -> dict[str, Any]:
    """The name of the dead letter of a run, as a batch takes it."""
    job = {"clientId": "shop", "jobId": "a", "taskData": task_data, **more}
    late = {"delivery": {"topic": TOPIC, "deadline": 0, "onLate": "dead_letter"}, "misfire": {"policy": "fire_once"}}
    every = {"trigger": {"type": "fixed_rate", "everyMs": 3_600_000}}
    async with (
        aiohttp.ClientSession(service.url, headers={"Authorization": "Bearer admin"}) as session,
        session.post("/jobs", json=job | late | every) as answer,
    ):
        assert answer.status == 201, await answer.text()
        due_ms = (await answer.json())["nextRun"]["dueAt"]
    service.engine.clock.set_ms(due_ms + 1)
    await service.deliver()
    (letter,) = await letters(service, key="admin")
    return {
        name: letter[name] for name in ("clientId", "jobId", "deliveryId", "deadLetterTopic", "partition", "offset")
    }


def data_by_hand(service: Service) -> list[bytes]:
    """The data of the runs by hand that are armed."""
    rows = [row for row in service.engine.store.rows.values() if row.run and row.run.kind == "manual"]
    return [row.schedule.task_data for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"taskData": {"n": 1}}, b'{"n":1}'),
        ({"taskData": "caf\u00e9"}, "caf\u00e9".encode()),
        ({"taskData": '"quoted"'}, b'"quoted"'),
        ({"taskData": 9_007_199_254_740_993}, b"9007199254740993"),
        ({"taskData": "AAH/", "taskDataEncoding": "base64"}, b"\0\x01\xff"),
    ],
)
async def test_letters_of_runs_are_retried_among_others_and_the_same_batch_again_runs_none_twice(
    given: dict[str, Any], sent: bytes
) -> None:
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        run = await a_failed_run(service, given["taskData"], **{n: v for n, v in given.items() if n != "taskData"})
        batch = {
            "deadLetters": [
                run,
                {"clientId": "shop", "scheduleKey": "a", "deliveryId": run["deliveryId"]},
                {**run, "deliveryId": "another"},
                {**run, "offset": 77},
                {**run, "deadLetterTopic": TOPIC},
                {**run, "partition": -1},
            ]
        }

        async def retried() -> list[Any]:
            async with session.post("/admin/dead-letters/retry", json=batch) as answer:
                results: list[Any] = (await answer.json())["results"]
                return results

        first, again = await retried(), await retried()

        assert [each["status"] for each in first] == [201, 404, 404, 404, 404, 400]
        assert [each["status"] for each in again] == [200, 404, 404, 404, 404, 400]
        assert (first[0]["run"]["kind"], first[0]["run"]["status"]) == ("manual", "armed")
        assert first[0]["run"]["runId"] == again[0]["run"]["runId"]
        assert data_by_hand(service) == [sent]
        assert first[1]["type"] == "urn:clockwork:problem:schedule-not-found"
        assert first[2]["type"] == "urn:clockwork:problem:dead-letter-not-found"


async def test_letters_of_runs_are_not_discarded_and_are_retried_by_those_who_may_run_a_job_alone() -> None:
    keys = {
        "operator": a_principal(Right.OPERATE, Right.READ, clients="shop"),
        "maker": a_principal(Right.CREATE, clients="shop"),
        "admin": a_principal(Right.ADMIN, Right.CREATE, clients="shop"),
        "redacted": replace(a_principal(*Right, clients="shop"), redacted=True),
        "elsewhere": a_principal(*Right, clients="bank"),
    }
    async with open_service(gate=gate_of(keys)) as service:
        run = await a_failed_run(service, "hush-hush")
        found = {}
        for key in keys:
            async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:
                results = [await acted(session, what, run) for what in ("discard", "retry")]
            found[key] = [status for status, _ in results]
            assert not any("hush-hush" in json.dumps(result) for _, result in results)
            if key == "operator":
                assert results[0][1]["type"] == "urn:clockwork:problem:dead-letter-of-run"

    assert found == {
        "operator": [409, 403],
        "maker": [403, 201],
        "admin": [403, 200],
        "redacted": [409, 200],
        "elsewhere": [403, 403],
    }
    assert data_by_hand(service) == [b"hush-hush"]


async def test_the_run_of_a_deleted_job_is_not_retried_and_its_item_says_why() -> None:
    async with open_service() as service, aiohttp.ClientSession(service.url) as session:
        run = await a_failed_run(service, None)
        async with session.delete("/jobs/shop/a") as answer:
            assert answer.status == 200

        status, result = await acted(session, "retry", run)

    assert (status, result["reason"], result["job"]["jobId"]) == (409, "deleted", "a")
    assert data_by_hand(service) == []
