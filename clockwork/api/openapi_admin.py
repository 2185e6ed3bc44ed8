"""The calls under /admin, described."""

from collections.abc import Mapping
from typing import Any, Final

from clockwork.api.admin_documents import PausesDocument
from clockwork.api.openapi_parts import ANYWHERE, NOW_MS, SCHEDULE_CALL, Answer, Call, problem
from clockwork.api.problems import forbidden

ADMIN: Final = "admin"

_PAUSED: Final[dict[str, Any]] = {"clients": [{"name": "shop", "since": NOW_MS}], "topics": []}
_COMMON: Final[Mapping[int, Answer]] = {
    **ANYWHERE,
    **{status: SCHEDULE_CALL[status] for status in (401, 429, 503)},
    403: problem(
        "The key does not have the right `admin`.",
        forbidden=forbidden("This key does not have the right 'admin'.", []),
    ),
}
_PAUSES: Final[Mapping[int, Answer]] = {
    200: Answer(description="All that is paused then.", model=PausesDocument, examples={"one": _PAUSED}),
    **_COMMON,
}
_HELD: Final = (
    "Within seconds every node holds back what is due for it, in place and in order; what stands behind it in the same lane "
    "waits too. Nothing is lost, no attempt is counted. Deadlines (`onLate`) are looked at when delivery goes on. Cancels "
    "and changes work as for anything that waits. The same call again changes nothing."
)
_GOES_ON: Final = "Delivery goes on within seconds. The same call again changes nothing."

ADMIN_CALLS: Final = (
    Call(
        method="GET",
        path="/admin/pauses",
        name="listPauses",
        tag=ADMIN,
        summary="What is paused",
        description="Clients and topics whose schedules are held back.",
        answers=_PAUSES,
    ),
    Call(
        method="PUT",
        path="/admin/pauses/clients/{clientId}",
        name="pauseClient",
        tag=ADMIN,
        summary="Pause the delivery of a client's schedules",
        description=_HELD,
        answers=_PAUSES,
    ),
    Call(
        method="DELETE",
        path="/admin/pauses/clients/{clientId}",
        name="resumeClient",
        tag=ADMIN,
        summary="Resume the delivery of a client's schedules",
        description=_GOES_ON,
        answers=_PAUSES,
    ),
    Call(
        method="PUT",
        path="/admin/pauses/topics/{topic}",
        name="pauseTopic",
        tag=ADMIN,
        summary="Pause the delivery to a topic",
        description=_HELD,
        answers=_PAUSES,
    ),
    Call(
        method="DELETE",
        path="/admin/pauses/topics/{topic}",
        name="resumeTopic",
        tag=ADMIN,
        summary="Resume the delivery to a topic",
        description=_GOES_ON,
        answers=_PAUSES,
    ),
)
