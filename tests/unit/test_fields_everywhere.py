"""Every field of a create is stored, answered, changed and removed, and the client and the command line offer it."""

import json
from typing import Any

import pytest

from clockwork import client as c
from clockwork.client.schedules import Changes, NewScheduleFields
from clockwork.schema.change import ChangeForm
from clockwork.schema.schedule import DeliveryForm, RetryForm, ScheduleForm, document_of, read_schedule
from clockwork.stores.dynamodb.codec import content_item, schedule_of
from tests.unit.api_edge import DUE_MS, NOW_MS, StillClock, a_request, open_edge
from tests.unit.client_stub import open_stub, run_command
from tests.unit.test_api_fields import EVERYTHING

ARGUMENTS: dict[str, str] = {"scheduleTime": "at", "taskData": "data", "deadline": "deadline_ms"}
"""Fields that the client names otherwise than the HTTP API."""
OPTIONS: dict[str, tuple[str, str]] = {
    "scheduleTime": ("at", str(DUE_MS)),
    "taskData": ("data-file", "-"),
    "headers": ("header", "source=web"),
    "deadline": ("deadline", "1m"),
    "attempts": ("retry-attempts", "5"),
    "initialMs": ("retry-initial", "500ms"),
    "maxMs": ("retry-max", "20s"),
    "factor": ("retry-factor", "1.5"),
    "jitter": ("retry-jitter", "0.25"),
}
"""Fields whose option is named or written otherwise than the field."""
LEAVES: dict[str, Any] = {
    name: value for name, value in {**EVERYTHING, **EVERYTHING["delivery"]}.items() if name != "delivery"
}
CHANGED = {name: value for name, value in LEAVES.items() if name not in {"clientId", "scheduleKey"}}


def aliases(model: Any) -> set[str]:
    return {each.alias for each in model.model_fields.values()}


def words(name: str, between: str) -> str:
    """`orderingKey` as `ordering_key` or `ordering-key`."""
    return "".join(between + letter.lower() if letter.isupper() else letter for letter in name)


def in_place(name: str, value: Any) -> dict[str, Any]:
    """A document with this field alone."""
    return {"delivery": {name: value}} if name in EVERYTHING["delivery"] else {name: value}


def arguments() -> dict[str, Any]:
    """EVERYTHING but the encoding, as arguments of the client."""
    given = {
        ARGUMENTS.get(name, words(name, "_")): value for name, value in LEAVES.items() if name != "taskDataEncoding"
    }
    retry = c.RetryPolicy(**{words(name, "_"): value for name, value in given["retry"].items()})
    return {**given, "data": b"hello", "retry": retry}


def test_the_example_has_every_field() -> None:
    assert EVERYTHING.keys() == aliases(ScheduleForm) == aliases(ChangeForm)
    assert EVERYTHING["delivery"].keys() == aliases(DeliveryForm)
    assert EVERYTHING["delivery"]["retry"].keys() == aliases(RetryForm)


async def test_every_field_is_stored_and_answered_as_it_was_given() -> None:
    async with open_edge() as edge:
        answer = await edge.post(EVERYTHING)
        assert answer.status == 201
        schedule = await edge.stored(EVERYTHING["scheduleKey"])
    assert {name: answer.json[name] for name in EVERYTHING} == EVERYTHING == document_of(schedule)
    item = content_item(schedule)
    assert schedule_of(item, schedule.client_id, schedule.schedule_key, schedule.due_ms) == schedule


@pytest.mark.parametrize("name", CHANGED)
async def test_every_field_is_changed_by_a_put_of_it_alone(name: str) -> None:
    # The two that mean nothing without another are given with it.
    together = {"taskDataEncoding": "taskData", "onLate": "deadline"}.get(name)
    body = in_place(name, CHANGED[name])
    if together is not None:
        body = {**body, **in_place(together, CHANGED[together])}
        if name == "onLate":
            body = {"delivery": {each: CHANGED[each] for each in (name, together)}}
    async with open_edge() as edge:
        assert (await edge.post(a_request(scheduleTime=DUE_MS + 1))).status == 201
        answer = await edge.ask("PUT", "/schedule/shop/order-1", json=body)
    assert answer.status == 200
    found = answer.json["delivery"] if name in EVERYTHING["delivery"] else answer.json
    assert found[name] == CHANGED[name]


@pytest.mark.parametrize("name", sorted(set(CHANGED) - {"scheduleTime", "taskDataEncoding"}))
def test_every_field_makes_another_request(name: str) -> None:
    def digest(document: Any) -> str:
        return read_schedule(document, cluster="clockwork", now_ms=NOW_MS, traceparent=None).digest

    other = {
        "topic": "t",
        "deadline": 1,
        "taskData": "aGVsbA==",
        "guarantee": "exactly_once",
        "onLate": "drop",
        "retry": {"attempts": 6},
    }
    changed = json.loads(json.dumps(EVERYTHING))
    (changed["delivery"] if name in changed["delivery"] else changed)[name] = other.get(name)
    assert digest(changed) != digest(EVERYTHING)


def test_the_client_sends_every_field() -> None:
    given = arguments()
    assert c.NewSchedule(**given).document(StillClock()) == EVERYTHING
    names = set(given) - {"client_id", "schedule_key"}
    assert NewScheduleFields.__annotations__.keys() == Changes.__annotations__.keys() == names


async def test_the_command_line_sends_every_field(tmp_path: Any) -> None:
    file = tmp_path / "hello"
    file.write_bytes(b"hello")
    plain = {
        name: value for name, value in LEAVES.items() if name not in {"clientId", "scheduleKey", "taskDataEncoding"}
    }
    fields = {**{name: value for name, value in plain.items() if name != "retry"}, **plain["retry"]}
    options = [OPTIONS.get(name, (words(name, "-"), str(value))) for name, value in fields.items()]
    line = [part for name, value in options for part in (f"--{name}", str(file) if value == "-" else value)]
    async with open_stub() as stub:
        result = await run_command(stub.url, "schedule", "create", "shop", "order-2", *line)
        assert (result.exit_code, stub.asked[0].body) == (0, EVERYTHING), result.output
