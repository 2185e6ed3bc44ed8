"""The request service: all that a caller can ask about schedules, whichever way the request came in.

Rights, rate limits, the limit of pending schedules, time limits and metrics are applied here; the use cases below know none
of them. A front door (HTTP, the commands topic) parses, calls the service and renders the result.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from clockwork.domain.activity import ChangeKind, ScheduleChange
from clockwork.domain.position import Position
from clockwork.domain.rights import RESEND, Principal, Right, authorize, authorize_any
from clockwork.domain.schedule import ClientId, ImportedSchedule, NewSchedule, Schedule, ScheduleKey
from clockwork.errors import (
    Forbidden,
    InvalidInput,
    LimitState,
    SearchOff,
    TooManyPending,
    TooManyRequests,
    Unavailable,
    Unreadable,
)
from clockwork.ports.store import KeyName
from clockwork.requests import state
from clockwork.requests.batch import ITEM_MS, Lanes, run_batch
from clockwork.requests.cancel import cancel_schedule
from clockwork.requests.context import RequestContext
from clockwork.requests.create import create_schedule, find_repeat
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.find_many import find_many
from clockwork.requests.history import HistoryPage, history_page
from clockwork.requests.imports import ImportItem, check_export, import_schedule
from clockwork.requests.jobs.service import JobService
from clockwork.requests.listing import ListPage, ListQuery, list_page
from clockwork.requests.pending_quota import NO_PENDING_LIMIT, PendingLimit
from clockwork.requests.rate_limits import NO_LIMITS, CreateLimits
from clockwork.requests.reschedule import Wish, reschedule
from clockwork.requests.results import (
    ANY_VERSION,
    AlreadyCreated,
    Cancelled,
    CancelResult,
    Change,
    Changed,
    ChangeResult,
    Created,
    CreateResult,
    ExportRefused,
    KeyTaken,
    NotFound,
    ScheduleView,
    Status,
    Unchanged,
    VersionCondition,
)
from clockwork.requests.retry_failed import retry_failed

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ActionItem:
    """An item of a batch of `cancel`, `fire` or `retry_failed`."""

    client_id: ClientId
    schedule_key: ScheduleKey
    condition: VersionCondition = ANY_VERSION
    due_ms: int | None = None
    """None: now."""

    @property
    def key(self) -> KeyName:
        return (self.client_id, self.schedule_key)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestService:
    """The requests of one node. Every method raises: Forbidden, Unavailable (a write may have happened: the same
    request again settles it), Unreadable; and with a `command`: CommandAlreadyProcessed."""

    context: RequestContext
    rate_limits: CreateLimits = NO_LIMITS
    pending: PendingLimit = NO_PENDING_LIMIT
    jobs: JobService = field(init=False)
    """All that a caller can ask about recurring jobs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", JobService(context=self.context, rate_limits=self.rate_limits))

    # --- one schedule

    async def create(
        self,
        principal: Principal,
        new: NewSchedule,
        *,
        accepted_us: int | None = None,
        known: AlreadyCreated | KeyTaken | None = None,
        command: CommandDedup | None = None,
    ) -> CreateResult:
        """Accepts a schedule. `accepted_us`: it is an item of a batch, which has reserved this time of acceptance. `known`:
        the batch has just found that the item stores nothing.

        Raises: InvalidInput (its topic does not exist), TooManyRequests.
        """
        if accepted_us is None:
            self.context.tracer.create(new.client_id, new.topic)
        context = self.context
        limits: tuple[LimitState, ...] = ()
        try:
            authorize(principal, Right.CREATE, new.client_id, new.topic)
            limits = self.rate_limits.take(new.client_id, payload_bytes=len(new.task_data))
            ahead_ms = new.due_ms - context.clock.now_ms()
            try:
                async with (
                    self.pending.room(new.client_id, ahead_ms=ahead_ms) as room,
                    context.deadline() as deadline,
                ):
                    limits += room.limits
                    result = await create_schedule(
                        context, new, deadline, accepted_us=accepted_us, known=known, command=command
                    )
                    room.used = isinstance(result, Created)
            except TooManyRequests as full:
                # A schedule that was accepted before stays accepted, and a repeat is answered so.
                if known is None:
                    async with context.deadline() as deadline:
                        known = await find_repeat(context, new, deadline, command=command)
                if known is None:
                    full.limits = limits + full.limits
                    context.telemetry.limited("pending")
                    raise
                result = known
        except (InvalidInput, Forbidden, TooManyRequests) as error:
            # A command over a rate limit, or whose client is being counted, is not rejected: it waits.
            waits = isinstance(error, TooManyRequests) and not isinstance(error, TooManyPending)
            if command is None or not waits:
                self.count_rejected()
            raise
        match result:
            case Created(view):
                context.telemetry.schedule("created", _change("created", view, principal))
                return Created(view, limits)
            case AlreadyCreated(view):
                context.telemetry.schedule("repeated")
                return AlreadyCreated(view, limits)
            case KeyTaken():
                self.count_rejected()
                return result

    async def find(self, principal: Principal, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        """The present state of a key. None: no schedule was ever accepted under it, or its retention is over."""
        authorize(principal, Right.READ, client_id)
        return await self.find_unchecked(client_id, schedule_key)

    async def find_unchecked(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        """The present state of a key, as `find` returns it, for callers that check the rights themselves."""
        async with self.context.deadline() as deadline:
            return await state.read_state(self.context, client_id, schedule_key, deadline)

    async def cancel(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> CancelResult:
        """Cancels the schedule that is pending under the key."""
        authorize(principal, Right.CANCEL, client_id)
        async with self.context.deadline() as deadline:
            result = await cancel_schedule(
                self.context, client_id, schedule_key, deadline, condition=condition, command=command
            )
        if isinstance(result, Cancelled):
            self.context.telemetry.schedule("cancelled", _change("cancelled", result.view, principal))
        return result

    async def reschedule(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        change: Change,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> ChangeResult:
        """Changes the schedule that is pending under the key. Raises: InvalidInput (by `change`, or the new topic does not
        exist)."""
        authorize(principal, Right.CREATE, client_id)

        def covered(schedule: Schedule) -> Schedule:
            # The right for the topic is checked even if the change keeps it: the record is then sent for this
            # principal.
            changed = change(schedule)
            authorize(principal, Right.CREATE, client_id, changed.topic)
            return changed

        wish = Wish(change=covered, condition=condition, command=command)
        async with self.context.deadline() as deadline:
            result = await reschedule(self.context, client_id, schedule_key, deadline, wish)
        return self._counted("moved", result, principal)

    async def fire(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        condition: VersionCondition = ANY_VERSION,
    ) -> ChangeResult:
        """Makes the pending schedule due now; one that is due already stays as it is."""
        authorize_any(principal, RESEND, client_id)
        now_ms = self.context.clock.now_ms()

        def due_now(schedule: Schedule) -> Schedule:
            return replace(schedule, due_ms=min(schedule.due_ms, now_ms))

        wish = Wish(change=due_now, condition=condition, command=None)
        async with self.context.deadline() as deadline:
            result = await reschedule(self.context, client_id, schedule_key, deadline, wish)
        return self._counted("fired", result, principal)

    async def retry_failed(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        due_ms: int | None = None,
        condition: VersionCondition = ANY_VERSION,
    ) -> ChangeResult:
        """Makes the schedule that failed under the key pending again, due at `due_ms` (epoch milliseconds; None: now).

        Raises: InvalidInput (its topic does not exist), TooManyRequests.
        """
        authorize_any(principal, RESEND, client_id)
        ahead_ms = 0 if due_ms is None else due_ms - self.context.clock.now_ms()
        try:
            async with self.pending.room(client_id, ahead_ms=ahead_ms) as room:
                result = await self._retry_failed(client_id, schedule_key, due_ms, condition)
                room.used = isinstance(result, Changed)
        except TooManyRequests:
            view = await self.find_unchecked(client_id, schedule_key)
            if view is not None and view.status is Status.FAILED and condition.holds(view.version):
                self.context.telemetry.limited("pending")
                raise
            # No schedule becomes pending by it: it may be the same request again.
            result = await self._retry_failed(client_id, schedule_key, due_ms, condition)
        return self._counted("retried", result, principal)

    # --- many

    async def list_schedules(
        self, principal: Principal, query: ListQuery, *, after: Position | None, limit: int
    ) -> ListPage:
        """The schedules of a client after `after`, at most `limit`. Raises: SearchOff."""
        if not self.context.lists:
            raise SearchOff
        authorize(principal, Right.READ, query.client_id)
        async with self.context.deadline() as deadline:
            return await list_page(self.context, query, deadline, after=after, limit=limit)

    async def history(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        after: Position | None,
        limit: int,
    ) -> HistoryPage | NotFound:
        """The ends of all schedules that stood under the key, after `after`, at most `limit`."""
        authorize(principal, Right.READ, client_id)
        async with self.context.deadline() as deadline:
            return await history_page(self.context, client_id, schedule_key, deadline, after=after, limit=limit)

    async def create_batch(
        self, principal: Principal, items: Sequence[NewSchedule | InvalidInput]
    ) -> list[CreateResult | Exception]:
        """Accepts each schedule as `create` does, those of one lane in the order given. An item that could not be read is
        its own result. See `batch`."""
        timeout_ms = self.batch_timeout_ms(len(items))
        all_stored_by_ms = self.context.clock.now_ms() + timeout_ms
        items_of = Counter(_lane(item, due_by_ms=all_stored_by_ms) for item in items)
        acceptances = [self.context.acceptance.next_us() for _ in items]

        async def create(item: tuple[int, NewSchedule | InvalidInput]) -> CreateResult:
            accepted_us, new = item
            if isinstance(new, InvalidInput):
                self.count_rejected()
                raise new
            return await self.create(principal, new, accepted_us=accepted_us)

        async def create_repeat(item: tuple[int, NewSchedule | InvalidInput]) -> CreateResult | None:
            accepted_us, new = item
            if isinstance(new, InvalidInput):
                return None
            known = await self._known_repeat(principal, new)
            return None if known is None else await self.create(principal, new, accepted_us=accepted_us, known=known)

        def key_of(item: tuple[int, NewSchedule | InvalidInput]) -> KeyName | None:
            _, new = item
            return None if isinstance(new, InvalidInput) else (new.client_id, new.schedule_key)

        def lane_of(item: tuple[int, NewSchedule | InvalidInput]) -> Hashable | None:
            lane = _lane(item[1], due_by_ms=all_stored_by_ms)
            return lane if items_of[lane] > 1 else None

        lanes: Lanes[tuple[int, NewSchedule | InvalidInput], CreateResult] = Lanes(
            lane_of=lane_of, do_early=create_repeat
        )
        return await run_batch(
            create,
            list(zip(acceptances, items, strict=True)),
            key_of=key_of,
            lanes=lanes,
            timeout_ms=timeout_ms,
        )

    async def import_batch(
        self, principal: Principal, items: Sequence[ImportedSchedule | InvalidInput], *, exported_at_ms: int
    ) -> list[CreateResult | Exception] | ExportRefused:
        """Imports pending schedules of another store (`imports`), those of one lane in the order given. Limits of clients
        are not applied. An item that could not be read is its own result."""
        refused = check_export(self.context, exported_at_ms)
        if refused is not None:
            return refused
        timeout_ms = self.batch_timeout_ms(len(items))
        all_stored_by_ms = self.context.clock.now_ms() + timeout_ms
        items_of = Counter(_lane(_content_of(item), due_by_ms=all_stored_by_ms) for item in items)
        keys = {key for item in items if (key := _import_key(item)) is not None}
        async with self.context.deadline():
            # An import that is repeated finds most items there already: one look at all of them saves each its write.
            seen = await self.context.search.read_pointers(list(keys))

        async def import_one(item: ImportedSchedule | InvalidInput) -> CreateResult:
            if isinstance(item, InvalidInput):
                self.count_rejected()
                raise item
            new = item.new
            try:
                authorize(principal, Right.CREATE, new.client_id, new.topic)
                async with self.context.deadline() as deadline:
                    found = ImportItem(item, seen.get((new.client_id, new.schedule_key)))
                    result = await import_schedule(self.context, found, deadline)
            except (InvalidInput, Forbidden):
                self.count_rejected()
                raise
            match result:
                case Created(view):
                    self.context.telemetry.schedule("created", _change("created", view, principal))
                case AlreadyCreated():
                    self.context.telemetry.schedule("repeated")
                case KeyTaken():
                    self.count_rejected()
            return result

        async def import_early(item: ImportedSchedule | InvalidInput) -> CreateResult | None:
            pointer = None if isinstance(item, InvalidInput) else seen.get((item.new.client_id, item.new.schedule_key))
            if isinstance(item, InvalidInput) or pointer is None or pointer.position != item.position:
                return None
            return await import_one(item)

        def lane_of(item: ImportedSchedule | InvalidInput) -> Hashable | None:
            lane = _lane(_content_of(item), due_by_ms=all_stored_by_ms)
            return lane if items_of[lane] > 1 else None

        lanes: Lanes[ImportedSchedule | InvalidInput, CreateResult] = Lanes(lane_of=lane_of, do_early=import_early)
        return await run_batch(import_one, items, key_of=_import_key, lanes=lanes, timeout_ms=timeout_ms)

    async def cancel_batch(
        self, principal: Principal, items: Sequence[ActionItem | InvalidInput]
    ) -> list[CancelResult | Exception]:
        """Cancels each as `cancel` does. An item that could not be read is its own result."""
        return await self._act_on(items, lambda item: self.cancel(principal, *item.key, condition=item.condition))

    async def fire_batch(
        self, principal: Principal, items: Sequence[ActionItem | InvalidInput]
    ) -> list[ChangeResult | Exception]:
        """Makes each due now as `fire` does. An item that could not be read is its own result."""
        return await self._act_on(items, lambda item: self.fire(principal, *item.key, condition=item.condition))

    async def retry_batch(
        self, principal: Principal, items: Sequence[ActionItem | InvalidInput]
    ) -> list[ChangeResult | Exception]:
        """Arms each again as `retry_failed` does. An item that could not be read is its own result."""

        def retry(item: ActionItem) -> Awaitable[ChangeResult]:
            return self.retry_failed(principal, *item.key, due_ms=item.due_ms, condition=item.condition)

        return await self._act_on(items, retry)

    async def find_many(
        self, principal: Principal, items: Sequence[KeyName | InvalidInput]
    ) -> list[ScheduleView | NotFound | Exception]:
        """The present state of each key, as `find` shows it. An item that could not be read, or is not covered, is its own
        result."""
        refused: dict[KeyName, Exception] = {}
        for name in {item for item in items if not isinstance(item, InvalidInput)}:
            try:
                authorize(principal, Right.READ, name[0])
            except Forbidden as error:
                refused[name] = error
        names = dict.fromkeys(item for item in items if not isinstance(item, InvalidInput) and item not in refused)
        async with self.context.deadline() as deadline:
            found = await find_many(self.context, list(names), deadline)
        return [item if isinstance(item, InvalidInput) else refused.get(item) or found[item] for item in items]

    def count_rejected(self) -> None:
        """Counts a create that a front door could not read."""
        self.context.telemetry.schedule("rejected")

    # --- within

    async def _act_on(
        self, items: Sequence[ActionItem | InvalidInput], act: Callable[[ActionItem], Awaitable[_Result]]
    ) -> list[_Result | Exception]:
        """The results of `act` on each item, those of one key one after the other."""

        async def act_on_one(item: ActionItem | InvalidInput) -> _Result:
            if isinstance(item, InvalidInput):
                raise item
            return await act(item)

        def key_of(item: ActionItem | InvalidInput) -> KeyName | None:
            return None if isinstance(item, InvalidInput) else item.key

        return await run_batch(act_on_one, items, key_of=key_of, timeout_ms=self.batch_timeout_ms(len(items)))

    async def _retry_failed(
        self, client_id: ClientId, schedule_key: ScheduleKey, due_ms: int | None, condition: VersionCondition
    ) -> ChangeResult:
        async with self.context.deadline() as deadline:
            return await retry_failed(
                self.context, client_id, schedule_key, deadline, due_ms=due_ms, condition=condition
            )

    async def _known_repeat(self, principal: Principal, new: NewSchedule) -> AlreadyCreated | KeyTaken | None:
        """The result of a create that stores nothing; None if it would store, or if only the create itself can find
        out."""
        try:
            authorize(principal, Right.CREATE, new.client_id, new.topic)
            async with self.context.deadline() as deadline:
                return await find_repeat(self.context, new, deadline)
        except (Forbidden, Unavailable, Unreadable):
            return None

    def _counted(self, kind: ChangeKind, result: ChangeResult, principal: Principal) -> ChangeResult:
        match result:
            case Changed(view):
                self.context.telemetry.schedule("rescheduled", _change(kind, view, principal))
            case Unchanged():
                self.context.telemetry.schedule("repeated")
        return result

    def batch_timeout_ms(self, items: int) -> int:
        """The time limit of a batch with so many items."""
        return self.context.settings.request_timeout_ms + ITEM_MS * items


def _change(kind: ChangeKind, view: ScheduleView, principal: Principal) -> ScheduleChange:
    return ScheduleChange(
        kind=kind,
        client_id=view.client_id,
        schedule_key=view.schedule_key,
        shard=view.shard,
        topic=None if view.schedule is None else view.schedule.topic,
        by=principal.name,
    )


def _import_key(item: ImportedSchedule | InvalidInput) -> KeyName | None:
    return None if isinstance(item, InvalidInput) else (item.new.client_id, item.new.schedule_key)


def _content_of(item: ImportedSchedule | InvalidInput) -> NewSchedule | InvalidInput:
    return item if isinstance(item, InvalidInput) else item.new


def _lane(item: NewSchedule | InvalidInput, *, due_by_ms: int) -> Hashable | None:
    """The lane in which an item of a batch waits for its turn; None if it needs no turn."""
    if isinstance(item, InvalidInput) or item.due_ms > due_by_ms:
        return None
    return item.topic, item.ordering_key
