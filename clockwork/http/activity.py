"""GET /events and GET /minutes: what happened lately, and how much of it a minute, for whom the key covers."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.activity import (
    KINDS,
    LATENESS_BOUNDS_MS,
    MINUTE_MS,
    OTHER_TOPICS,
    Event,
    largest_topics,
)
from clockwork.domain.destination import Topic
from clockwork.domain.rights import Principal, Right, authorize_any, sees_events
from clockwork.errors import EventsOff, FieldError, Forbidden, InvalidInput
from clockwork.http.query import CLIENT, LIMIT_DEFAULT, LIMIT_MAX, TIME, TOPIC, limit_of, read_query, time_of
from clockwork.http.responses import json_list_response, json_response
from clockwork.http.routes import ACTIVITY, EVENTS_OFF, KEYED_CALL, Answer, Parameter, route
from clockwork.operations.activity import MINUTES_BACK_MS, ActivityTail, Cursor, Step
from clockwork.schema.activity import EventsDocument, MinutesDocument, render_counts, render_event, render_rate_limit
from clockwork.schema.schedule import KEY_SCHEMA, key_of

STEPS_MAX: Final = 1_500
"""Steps of one answer: a day by the minute."""
_HOUR_MS: Final = 3_600_000


def _kinds(text: str) -> frozenset[str]:
    kinds = frozenset(text.split(","))
    if unknown := sorted(kinds.difference(KINDS)):
        raise ValueError(f"should be some of {', '.join(KINDS)}, not {unknown[0][:20]!r}")
    return kinds


def _step_ms(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12) or int(text) % MINUTE_MS or int(text) == 0:
        raise ValueError(f"should be a multiple of {MINUTE_MS}")
    return int(text)


_EVENTS: Final = (
    Parameter(
        name="cursor",
        description="Cursor of an answer before: what came behind it, with any filters.",
        schema={"type": "string"},
    ),
    Parameter(
        name="from",
        description="Begin with the first event of this time or later; without it and a cursor, with the latest ones.",
        schema=TIME,
        parse=time_of,
    ),
    Parameter(
        name="kind",
        description="Only these kinds, separated by commas.",
        schema={"type": "string"},
        example="delivered,failed",
        parse=_kinds,
    ),
    CLIENT,
    Parameter(name="scheduleKey", description="Only with this key, or of this job.", schema=KEY_SCHEMA, parse=key_of),
    TOPIC,
    Parameter(
        name="result",
        description="Only refusals and failures with this reason, a short stable code.",
        schema={"type": "string"},
    ),
    Parameter(
        name="limit",
        description=f"Events of one answer; by default {LIMIT_DEFAULT}.",
        schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
        example=LIMIT_DEFAULT,
        parse=limit_of,
    ),
)
_MINUTES: Final = (
    Parameter(name="from", description="From this time on; by default the last hour.", schema=TIME, parse=time_of),
    Parameter(
        name="to", description="Before this time; by default up to the present minute.", schema=TIME, parse=time_of
    ),
    Parameter(
        name="stepMs",
        description=f"Length of a step, a multiple of {MINUTE_MS}.",
        schema={"type": "integer", "minimum": MINUTE_MS, "multipleOf": MINUTE_MS},
        example=MINUTE_MS,
        parse=_step_ms,
    ),
    TOPIC,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityHandlers:
    """The calls about activity."""

    tail: ActivityTail | None
    """None: this cluster records none."""
    now_ms: Callable[[], int]

    @route(
        "GET",
        "/events",
        name="listEvents",
        tag=ACTIVITY,
        summary="What happened lately",
        description=(
            "Events of the covered clients, oldest first: creates, changes, cancels, deliveries, refusals, failures and "
            "pauses. Without `cursor` and `from` the latest ones; with the cursor of an answer what came since, from any "
            "node. They are shown some tenths of a second after they happened and kept for a day, without payloads. Best "
            "effort: an event may be missing, the schedule itself says what is true. Above 2,000 a second of a process, "
            "creates and deliveries are sampled: such an event says how many it stands for."
        ),
        parameters=_EVENTS,
        polled=True,
        answers={200: Answer(description="Some events.", model=EventsDocument), 501: EVENTS_OFF, **KEYED_CALL},
    )
    async def events(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, [Right.READ])
        tail = self._tail()
        given = read_query(request, _EVENTS)
        cursor = decode_cursor(given.get("cursor"))
        if cursor is not None and "from" in given:
            raise InvalidInput([FieldError("from", "does not go with a cursor, which says where to go on")])
        if (client_id := given.get("clientId")) is not None and not principal.clients.cover(client_id):
            raise Forbidden(
                "clientId is not covered by this key.", [FieldError("clientId", "is not covered by this key")]
            )
        shows = _filter(principal, given)
        limit = given.get("limit", LIMIT_DEFAULT)
        page = await tail.events(shows, cursor=cursor, from_ms=given.get("from"), limit=limit)
        more = {"cursor": encode_cursor(page.cursor), "more": page.more, "asOf": self.now_ms()}
        more |= {"missed": True} if page.missed else {}
        more |= {} if page.kept_from_ms is None else {"keptFrom": page.kept_from_ms}
        return await json_list_response("events", map(render_event, page.events), **more)

    @route(
        "GET",
        "/minutes",
        name="listMinutes",
        tag=ACTIVITY,
        summary="Rates and lateness by the minute",
        description=(
            "Counts of each minute of all processes, up to 8 days back: creates, cancels, changes, deliveries, refusals, "
            "failures, and deliveries by lateness; and of each topic over the whole time. Of covered topics only; with "
            "`admin`, or a key that covers every topic, of all. A minute is there some seconds after its end. Best effort: "
            "metrics are what alerts should rely on."
        ),
        parameters=_MINUTES,
        polled=True,
        answers={200: Answer(description="The counts.", model=MinutesDocument), 501: EVENTS_OFF, **KEYED_CALL},
    )
    async def minutes(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, [Right.READ])
        tail = self._tail()
        given = read_query(request, _MINUTES)
        now_ms = self.now_ms()
        # The end of the present minute rather than now: the answer is then the same until there is another minute to tell.
        to_ms = given.get("to", (now_ms // MINUTE_MS + 1) * MINUTE_MS)
        step_ms = given.get("stepMs", MINUTE_MS)
        from_ms = given.get("from", to_ms - _HOUR_MS) // MINUTE_MS * MINUTE_MS
        if not 0 < to_ms - from_ms <= STEPS_MAX * step_ms:
            raise InvalidInput([FieldError("from", f"should be before to, by at most {STEPS_MAX} steps")])
        from_ms = max(from_ms, (now_ms - MINUTES_BACK_MS) // MINUTE_MS * MINUTE_MS)
        topic = given.get("topic")
        whole = sees_all_topics(principal)
        if topic is not None and not whole and not principal.topics.cover(topic):
            raise Forbidden("topic is not covered by this key.", [FieldError("topic", "is not covered by this key")])
        page = await tail.minutes(covered_topics(principal), from_ms=from_ms, to_ms=to_ms, step_ms=step_ms, topic=topic)
        by_topic = largest_topics(page.topics.items())
        others = by_topic.pop(OTHER_TOPICS, None)
        document = {
            "from": from_ms,
            "to": to_ms,
            "stepMs": step_ms,
            "asOf": now_ms,
            "latenessBoundsMs": list(LATENESS_BOUNDS_MS),
            "minutes": [_step(at_ms, step, whole=whole) for at_ms, step in page.steps.items()],
            "topics": [
                {"topic": name, **render_counts(counts), **render_rate_limit(page.rate_limits.get(name))}
                for name, counts in by_topic.items()
            ],
        }
        document["waiting"] = [
            {"topic": name, "since": wait.since_ms, "reason": wait.reason} for name, wait in page.waits.items()
        ]
        document |= {} if page.kept_from_ms is None else {"keptFrom": page.kept_from_ms}
        document |= {} if others is None or not whole else {"otherTopics": render_counts(others)}
        return json_response(document)

    def _tail(self) -> ActivityTail:
        """Raises: EventsOff."""
        if self.tail is None:
            raise EventsOff
        return self.tail


def sees_all_topics(principal: Principal) -> bool:
    """True if the principal may see the counts of every topic."""
    return Right.ADMIN in principal.rights or principal.topics.all


def covered_topics(principal: Principal) -> Callable[[Topic], bool]:
    """True for the topics of which the principal may see the counts."""
    if sees_all_topics(principal):
        return lambda _: True
    return lambda name: name != OTHER_TOPICS and principal.topics.cover(name)


def _step(at_ms: int, step: Step, *, whole: bool) -> dict[str, object]:
    health = {"processes": step.processes, "loopLagMs": step.loop_lag_ms} if whole else {}
    return {"at": at_ms, **render_counts(step.counts), **health}


def _filter(principal: Principal, given: Mapping[str, object]) -> Callable[[Event], bool]:
    """The events that the principal may see and has asked for."""
    kinds, client_id, topic = given.get("kind"), given.get("clientId"), given.get("topic")
    key, result = given.get("scheduleKey"), given.get("result")

    def covered(event: Event) -> bool:
        # Without a client: a topic that was paused; a shard that was fenced, or a row of which no client can be read.
        topic = event.topic if event.shard is None else None
        return sees_events(principal, client_id=event.client_id, topic=topic)

    def shows(event: Event) -> bool:
        return (
            (kinds is None or event.kind in kinds)  # type: ignore[operator]  # a set of names (`_kinds`)
            and (client_id is None or event.client_id == client_id)
            and (topic is None or event.topic == topic)
            and (key is None or key in (event.schedule_key, event.job_id))
            and (result is None or event.result == result)
            and covered(event)
        )

    return shows


def encode_cursor(cursor: Cursor) -> str:
    """A cursor as text."""
    places = [[number, *place] for number, place in sorted(cursor.places.items())]
    return base64.urlsafe_b64encode(orjson.dumps([cursor.at_ms, places])).decode().rstrip("=")


def decode_cursor(text: str | None) -> Cursor | None:
    """A cursor that was given out. Raises: InvalidInput."""
    if text is None:
        return None
    try:
        at_ms, places = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        numbers = [at_ms, *(number for place in places for number in place)]
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or len(places) > 1_000:
            raise ValueError("no cursor")
        return Cursor(places={number: (offset, nth) for number, offset, nth in places}, at_ms=at_ms)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput([FieldError("cursor", "is not one that was given out")]) from error
