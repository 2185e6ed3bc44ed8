"""The checker sees what is wrong with commands."""

import json
from typing import Any, cast

from tests.chaos.history import Command, CommandFate, History, ScheduleHistory, WantedChange
from tests.chaos.made_histories import DUE_MS, asked, broken, content, record, seen
from tests.support.reader import Arrived


def command(number: int = 0, kind: Any = "create", fate: CommandFate = "committed", **more: Any) -> Command:
    return Command(number=number, kind=kind, schedule_key="a", fate=fate, sent_ms=5_000, **more)


def created(by: Command, *others: Command) -> ScheduleHistory:
    """And delivered."""
    one = asked(accepted_ms=None, created_by=by, commands=[by, *others])
    one.seen.append(seen("delivered", place=("t", 0, 0), content=content()))
    return one


def letter(number: int) -> Arrived:
    return record("", mine=str(number), clockwork_source="0/1", clockwork_reason="command_invalid")


def test_commands_that_were_committed_and_answered_are_acquitted() -> None:
    first = command(statuses=[201])
    wrong = command(1, "poison", statuses=[400])
    silent = command(2, "cancel", wants_reply=False)
    aborted = command(3, "cancel", "aborted")
    commands = [first, wrong, silent, aborted]
    dead = [letter(1)]
    assert broken([created(first, silent, aborted)], [record()], commands=commands, dead_letters=dead) == set()


def test_a_committed_create_exists() -> None:
    for fate, wrong in (("committed", {"commands without an effect"}), ("unknown", set())):
        first = command(fate=cast(CommandFate, fate), wants_reply=False)
        one = asked(accepted_ms=None, created_by=first, commands=[first])
        one.seen.append(seen("absent", content=None, version=0))
        assert broken([one], commands=[first]) == wrong
        assert one.ended is (not wrong), "else it is asked for again"


def test_what_a_client_commands_after_a_create_finds_what_was_created() -> None:
    first, second = command(statuses=[201]), command(1, "cancel", statuses=[404])
    assert broken([created(first, second)], [record()], commands=[first, second]) == {"commands without an effect"}


def test_who_wants_an_answer_gets_one() -> None:
    cases: list[tuple[CommandFate, bool, bool]] = [
        ("committed", True, True),
        ("committed", False, False),
        ("unknown", True, False),
    ]
    for fate, wants_reply, wrong in cases:
        first = command(fate=fate, wants_reply=wants_reply)
        found = broken([created(first)], [record()], commands=[first])
        assert found == ({"commands that were never answered"} if wrong else set())


def test_an_aborted_command_has_no_effect_no_answer_and_no_dead_letter() -> None:
    wrong = {"aborted commands with an effect"}
    first = command(fate="aborted")
    assert broken([created(first)], [record()], commands=[first]) == wrong
    first, answered = command(statuses=[201]), command(1, "cancel", "aborted", statuses=[200])
    assert broken([created(first, answered)], [record()], commands=[first, answered]) == wrong
    poison = command(1, "poison", "aborted")
    assert wrong <= broken([created(first)], [record()], commands=[first, poison], dead_letters=[letter(1)])
    cancel = command(1, "cancel", "aborted")
    one = asked(created_by=first, commands=[first, cancel])
    one.seen.append(seen("cancelled", content=content()))
    assert broken([one], commands=[first, cancel]) == wrong
    cancel.fate = "unknown"
    assert broken([one], commands=[first, cancel]) == set()


def test_an_aborted_change_leaves_no_trace() -> None:
    first, change = command(statuses=[201]), command(1, "reschedule", "aborted")
    one = created(first, change)
    one.wishes.append(WantedChange(kind="reschedule", data="changed"))
    other = content(data="changed")
    one.seen[-1] = seen("delivered", place=("t", 0, 0), content=other, version=2)
    assert broken([one], [record(of=other)], commands=[first, change]) == {"answers to changes that are not true"}


def test_a_change_by_command_is_made_once() -> None:
    # Three versions by one change: it was carried out again behind another.
    first = command(statuses=[201])
    change = command(
        1, "reschedule", wish=WantedChange(kind="reschedule", data="changed", tries_ms=[5_100]), statuses=[200]
    )
    one = created(first, change)
    assert change.wish is not None
    one.wishes.append(change.wish)
    other = content(data="changed")
    for version, found in ((2, set()), (3, {"answers to changes that are not true"})):
        one.seen[-1] = seen("delivered", place=("t", 0, 0), content=other, version=version)
        assert broken([one], [record(of=other)], commands=[first, change]) == found


def test_poison_is_a_dead_letter_and_nothing_else_is() -> None:
    first, wrong = command(statuses=[201]), command(1, "poison", statuses=[400])
    found = {"dead letters of commands"}
    assert broken([created(first)], [record()], commands=[first, wrong]) == found
    both = [letter(0), letter(1)]
    assert broken([created(first)], [record()], commands=[first, wrong], dead_letters=both) == found


def reply(number: int, status: int, document: dict[str, Any]) -> Arrived:
    made = record("", at_ms=6_000, clockwork_correlation_id=str(number))
    fields = {name: getattr(made, name) for name in made.__slots__}
    return Arrived(**fields | {"value": json.dumps({"status": status, **document}).encode()})


def test_an_answer_to_a_command_is_an_answer_about_what_was_there_since_it_was_sent() -> None:
    first = command()
    history = History(asked={"a": created(first)}, commands=[first])
    one = history.asked["a"]
    one.seen.clear()
    shown = {"scheduleTime": DUE_MS, "taskData": "", "orderingKey": "lane", "deliveryId": "", "version": 1}
    history.note_reply(reply(0, 201, {"schedule": {**shown, "status": "pending"}}))
    assert (one.accepted_ms, first.statuses, history.improper) == (6_000, [201], [])
    (answer,) = one.seen
    assert (answer.sent_ms, answer.received_ms, answer.state, answer.content) == (5_000, 6_000, "pending", content())
    history.note_reply(reply(0, 503, {}))
    history.note_reply(reply(7, 200, {}))
    assert len(history.improper) == 2, "no such answer, no such command"
