"""Were answers to changes true? A schedule has one content in each version, which is what some client asked for; every
version has a request that made it; what failed had a reason to."""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from typing import Final

from tests.chaos.history import EXPIRED, Content, ScheduleHistory, StateAnswer, shown_data
from tests.support.reader import Arrived

DUE: Final = "clockwork-schedule-time"
DELIVERY_ID: Final = "clockwork-delivery-id"
LATE_MS_MAX: Final = 15_000
"""By how much a record may be appended after its deadline: whether it is late is decided before it is sent, and then a
frozen broker may keep it waiting."""


def content_of(record: Arrived) -> Content:
    """The content that a record shows."""
    return Content(
        due_ms=int(record.text(DUE) or 0),
        data=shown_data(record.value.decode()),
        ordering_key=(record.key or b"").decode(),
        delivery_id=record.text(DELIVERY_ID),
    )


def delivery_id_of(record: Arrived) -> str:
    return record.text(DELIVERY_ID)


def shows(record: Arrived, content: Content | None) -> bool:
    """True if it is the record of this content, or of one that no client was told."""
    return content is None or content_of(record) == content


def armed(asked: ScheduleHistory) -> bool:
    """True if some client wanted it to be armed again, if it should fail."""
    return any(wish.kind == "retry" for wish in asked.wishes)


def failed_wrongly(asked: ScheduleHistory, skew_ms: int) -> Iterator[str]:
    """By whatever clock: that of the node that dropped it is its own, so skew counts only from one node to another."""
    for seen in asked.seen:
        if seen.state != "failed":
            continue
        may_expire = asked.deadline_ms is not None and asked.on_late != "deliver"
        if seen.failed_because == EXPIRED and may_expire:
            over_ms = (seen.content.due_ms if seen.content else asked.due_ms) + (asked.deadline_ms or 0)
            if seen.failed_at_ms < over_ms - skew_ms:
                yield f"{asked.schedule_key}: expired {over_ms - seen.failed_at_ms} ms before its deadline"
        elif seen.failed_because == EXPIRED or asked.fate != "refused":
            yield f"{asked.schedule_key}: failed ({seen.failed_because}), though nothing was wrong with it"


def too_late(asked: ScheduleHistory, records: Sequence[Arrived], skew_ms: int) -> Iterator[str]:
    """Delivered, when it should have been dropped."""
    if asked.deadline_ms is None or asked.on_late == "deliver":
        return
    over_ms = asked.due_last_ms + asked.deadline_ms
    for record in records:
        if record.timestamp_ms > over_ms + skew_ms + LATE_MS_MAX:
            yield f"{asked.schedule_key}: {record.timestamp_ms - over_ms} ms after its deadline at {record.place}"


def untrue(asked: ScheduleHistory, skew_ms: int, misled: Set[str]) -> Iterator[str]:
    """Answers about versions and contents that cannot be. A node that is `misled` has another idea of now."""
    contents: dict[int, set[Content]] = defaultdict(set)
    for seen in asked.seen:
        if seen.content is not None:
            contents[seen.version].add(seen.content)
            if not _asked_for(asked, seen, seen.content, skew_ms):
                yield f"{asked.schedule_key}: no client asked for {seen.content} ({seen.call} v{seen.version})"
        for wrong in _wrong_status(seen, 10**9 if seen.node in misled else skew_ms):
            yield f"{asked.schedule_key}: {wrong} ({seen.call} {seen.status} v{seen.version}, {seen.wish})"
    for version, several in contents.items():
        if len(several) > 1:
            yield f"{asked.schedule_key}: version {version} is {several}"
    tries = sum(len(wish.tries_ms) for wish in asked.wishes)
    if asked.version > 1 + tries:
        yield f"{asked.schedule_key}: version {asked.version} by {tries} requests"


def _asked_for(asked: ScheduleHistory, seen: StateAnswer, content: Content, skew_ms: int) -> bool:
    """True if some client had asked for it before the answer came."""
    wishes = [wish for wish in asked.wishes if wish.tries_ms and wish.tries_ms[0] <= seen.received_ms]
    due = content.due_ms == asked.due_ms or any(
        content.due_ms >= wish.tries_ms[0] - skew_ms if wish.now else content.due_ms == wish.due_ms for wish in wishes
    )
    data = {asked.data, *(wish.data for wish in wishes)}
    lanes = {asked.ordering_key, *(wish.ordering_key for wish in wishes)}
    return due and content.data in data and content.ordering_key in lanes


def _wrong_status(seen: StateAnswer, skew_ms: int) -> Iterator[str]:
    wish, content = seen.wish, seen.content
    if seen.status == 409:
        yield from _wrong_conflict(seen)
    if wish is None or content is None:
        return
    if seen.status == 200:
        if seen.state != "pending":
            yield f"changed, and {seen.state}"
        if not wish.met_by(content) or (wish.kind == "fire" and content.due_ms > seen.received_ms + skew_ms):
            yield f"said to be as asked for, and is {content}"
        if wish.if_version is not None and seen.version not in (wish.if_version, wish.if_version + 1):
            yield "changed another version"
    if seen.status == 412:
        if seen.version == wish.if_version:
            yield "refused though it has the version"
        if seen.version - 1 == wish.if_version and wish.met_by(content):
            yield "refused though it is so already"


def _wrong_conflict(seen: StateAnswer) -> Iterator[str]:
    """Conflicts whose reason is not the state, or does not refuse the request."""
    if seen.reason != seen.state and (seen.reason, seen.state) != ("in_flight", "pending"):
        yield f"refused as {seen.reason}, and is {seen.state}"
    refusing = {
        "cancel": {"delivered", "failed", "in_flight"},
        "retry": {"delivered", "cancelled", "pending"},
    }.get(seen.call, {"delivered", "failed", "cancelled", "in_flight"})
    if seen.reason not in refusing:
        yield f"refused as {seen.reason}"
