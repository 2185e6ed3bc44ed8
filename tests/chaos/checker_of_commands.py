"""Had each committed command its effect, once, and an answer if it wanted one; and had each aborted one none?

What a command made of a schedule is judged as what requests make of it: its answer is an answer, its change a wish, which
only one that may be committed has a try of. Here is what is only true of commands.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.chaos.healed_phase import Remains
from tests.chaos.history import ABSENT, Command, History, ScheduleHistory
from tests.support.reader import Arrived

MINE: Final = "mine"
"""The header in which the producer numbers its commands."""
REASON: Final = "clockwork-reason"
SOURCE: Final = "clockwork-source"
"""Only dead letters of commands have it."""


def is_command(letter: Arrived) -> bool:
    """True if a dead letter is that of a command."""
    return bool(letter.text(SOURCE))


def judge(history: History, remains: Remains) -> dict[str, list[str]]:
    """As `checker.judge` does."""
    buried = Counter(int(letter.text(MINE)) for letter in remains.dead_letters if is_command(letter))
    commands = history.commands
    return {
        "commands without an effect": list(_ineffective(history)),
        "commands that were never answered": [
            f"command {one.number}: {one.kind} of {one.schedule_key}"
            for one in commands
            if one.answer_due and not one.statuses
        ],
        "aborted commands with an effect": list(_of_aborted(history, buried)),
        "dead letters of commands": [line for one in commands for line in _wrongly_buried(one, buried[one.number])],
    }


def _ineffective(history: History) -> Iterator[str]:
    for asked in history.asked.values():
        created_by = asked.created_by
        if created_by is None or created_by.fate != "committed":
            continue
        if asked.seen and asked.seen[-1].state == ABSENT:
            yield f"{asked.schedule_key}: created by committed command {created_by.number}, and unknown"
        # Its client's commands are carried out in their order.
        for later in asked.commands:
            if later.number > created_by.number and 404 in later.statuses:
                yield f"{asked.schedule_key}: unknown to command {later.number}, and created before it"


def _of_aborted(history: History, buried: Counter[int]) -> Iterator[str]:
    for command in history.commands:
        if command.fate == "aborted" and (command.statuses or buried[command.number]):
            yield f"command {command.number} ({command.kind} of {command.schedule_key}): answered or buried"
    for asked in history.asked.values():
        created_by = asked.created_by
        if created_by is not None and created_by.fate == "aborted" and asked.version > 0:
            yield f"{asked.schedule_key}: created by aborted command {created_by.number}"
        final = asked.final
        if final is not None and final.state == "cancelled" and not _cancel_asked(asked):
            yield f"{asked.schedule_key}: cancelled, and only aborted commands asked for that"


def _cancel_asked(asked: ScheduleHistory) -> bool:
    return asked.cancels > 0 or any(one.kind == "cancel" and one.fate != "aborted" for one in asked.commands)


def _wrongly_buried(command: Command, letters: int) -> Iterator[str]:
    if command.kind == "poison" and command.fate == "committed" and not letters:
        yield f"command {command.number}: wrong, and there is no dead letter of it"
    if command.kind != "poison" and letters:
        yield f"command {command.number}: {command.kind} of {command.schedule_key} is one"
