"""The present state of some keys, of any clients, as a read of each alone would show it, in a few batched reads."""

from collections.abc import Sequence
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.errors import ClockworkError
from clockwork.ports.store import KeyName
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.listing import present_views
from clockwork.requests.results import NotFound, ScheduleView

ALONE_AT_ONCE: Final = 8
"""Keys that are read alone at the same time."""

LookUpResult = ScheduleView | NotFound | ClockworkError


async def find_many(
    context: RequestContext, names: Sequence[KeyName], deadline: RequestDeadline
) -> dict[KeyName, LookUpResult]:
    """The state of each key; of one that cannot be read, the error. Raises: Unavailable."""
    pointers = await context.search.read_pointers(names)
    listed = list(pointers.values())
    views = await present_views(context, listed, None, deadline)
    results: dict[KeyName, LookUpResult] = {name: NotFound() for name in names}
    results |= {(view.client_id, view.schedule_key): view for view in views if view is not None}

    async def read_alone(name: KeyName) -> tuple[KeyName, LookUpResult]:
        try:
            return name, await state.read_state(context, *name, deadline) or NotFound()
        except ClockworkError as error:
            return name, error

    # A list leaves such a key out; here the reason for which it has no state is its result.
    doubted = [(p.client_id, p.schedule_key) for p, view in zip(listed, views, strict=True) if view is None]
    return results | dict(await gather_bounded(read_alone, doubted, at_once=ALONE_AT_ONCE))
