"""One event, one line: what is logged is listed in infra/logs.md, under one name each."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.support.log_calls import LogCall, log_calls

LISTED: Final = Path(__file__).parents[2] / "infra" / "logs.md"
CALLS: Final = log_calls()
ASKED: Final = re.compile(r"(?:until_)?logged\(\"([a-z_.]+)\"")
"""Of `ClusterNode.logged` and `until_logged`."""
NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")


def row_of(event: str, calls: list[LogCall]) -> str:
    """As it must stand in the table."""
    fields = ", ".join(f"`{field}`" for field in sorted({field for call in calls for field in call.fields}))
    return f"| `{event}` | {calls[0].level} | {calls[0].message} | {fields} |"


def by_event() -> dict[str, list[LogCall]]:
    found: dict[str, list[LogCall]] = defaultdict(list)
    for call in CALLS:
        found[call.event or ""].append(call)
    return found


def test_every_line_has_a_constant_message_and_the_name_of_its_event() -> None:
    assert len(CALLS) > 40
    assert [call.where for call in CALLS if call.event is None or call.message is None] == []
    assert [call.event for call in CALLS if call.event is None or not NAME.fullmatch(call.event)] == []


def test_an_event_means_one_thing() -> None:
    meanings = {event: {(call.level, call.message) for call in calls} for event, calls in by_event().items()}
    assert {event: said for event, said in meanings.items() if len(said) > 1} == {}
    messages: dict[str | None, set[str | None]] = defaultdict(set)
    for call in CALLS:
        messages[call.message].add(call.event)
    assert {message: events for message, events in messages.items() if len(events) > 1} == {}


def test_the_table_of_events_is_that_of_the_source() -> None:
    listed = [line for line in LISTED.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    fields = [line for line in listed if "." not in line.split("`")[1]]
    assert [line for line in listed if line not in fields] == [
        row_of(event, calls) for event, calls in sorted(by_event().items())
    ]
    named = {line.split("`")[1] for line in fields}
    assert named == {field for call in CALLS for field in call.fields}, "each field means one thing, which is said"


def test_no_field_is_for_a_key_or_what_a_client_entrusts_to_us() -> None:
    unsaid = {"key", "schedule_key", "ordering_key", "headers", "task_data", "body", "payload", "value", "raw"}
    assert {call.where for call in CALLS if call.fields & unsaid} == set()


def test_tests_look_for_events_that_there_are() -> None:
    # A test that no line has an event which was renamed would pass for ever.
    asked = {
        (path.name, event)
        for path in Path(__file__).parents[1].rglob("*.py")
        for event in ASKED.findall(path.read_text(encoding="utf-8"))
    }
    assert len(asked) > 10
    assert sorted((name, event) for name, event in asked if event not in by_event()) == []
