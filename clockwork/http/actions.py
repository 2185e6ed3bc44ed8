"""Records of what was done by hand: as an event of activity and as a line of the log, with the reason that was given.

Pauses, resumes and fences are recorded each time. So is a batch of cancels, fires, retries or discards, as a whole: an
operator's work on many is found again by its person, its number and its answers. A program that sends batches without a
reason is told of in one line a minute.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.activity import Action, BatchKind
from clockwork.domain.schedule import ClientId
from clockwork.errors import InvalidInput
from clockwork.http.body import body_of
from clockwork.ports.telemetry import Telemetry
from clockwork.schema.json import read_json
from clockwork.schema.reason import read_reason

REASON_BODY_BYTES_MAX: Final = 4 * 1024

REFUSED: Final = frozenset({"forbidden", "invalid-input"})
"""Answers to items of which nothing was looked at."""

log = logging.getLogger(__name__)


async def reason_of(request: web.Request) -> str | None:
    """The reason in the body of a request that needs no body; None: it gives none. Raises: Refusal, InvalidInput."""
    if not request.can_read_body:
        return None
    return await read_json(await body_of(request, bytes_max=REASON_BODY_BYTES_MAX), read_reason)


def record(telemetry: Telemetry, action: Action) -> None:
    """Records an action."""
    telemetry.action(action)
    often = action.answers is not None and action.reason is None
    log.info(
        "Done by hand",
        extra={
            "event": "operator.action",
            "action": action.kind,
            "principal": action.by,
            "client": action.client_id,
            "topic": action.topic,
            "shard": action.shard,
            "number": action.number,
            "answers": action.answers and " ".join(f"{name}={n}" for name, n in action.answers.items()),
            "reason_given": action.reason,
            "once_per": f"{action.by} {action.kind}" if often else None,
        },
    )


class BatchRecord:
    """The record of a batch, made while its results are rendered."""

    def __init__(self, request: web.Request, telemetry: Telemetry, kind: BatchKind, *, reason: str | None) -> None:
        self._principal = principal_of(request)
        self._telemetry = telemetry
        self._kind = kind
        self._reason = reason
        self._answers: Counter[str] = Counter()

    def counted(self, results: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The same results, counted by their answers."""
        for result in results:
            self._answers[answer_of(result)] += 1
            yield result

    def finish(self, clients: Iterable[ClientId | InvalidInput]) -> None:
        """Records the batch, unless all of it was refused. `clients`: those of its items.

        Else a key could put its name and any text into the activity of clients that it does not cover, and into the log.
        """
        if not self._answers.keys() - REFUSED:
            return
        named = set(clients)
        only = next(iter(named)) if len(named) == 1 else None
        record(
            self._telemetry,
            Action(
                kind=self._kind,
                by=self._principal.name,
                client_id=None if isinstance(only, InvalidInput) else only,
                number=self._answers.total(),
                answers=dict(self._answers.most_common()),
                reason=self._reason,
            ),
        )


def answer_of(result: Mapping[str, Any]) -> str:
    """The answer of an item in one word: `done`, or the reason why not, or else the kind of the problem."""
    if result["status"] < 300:
        return "done"
    return str(result.get("reason") or result["type"].rpartition(":")[2])
