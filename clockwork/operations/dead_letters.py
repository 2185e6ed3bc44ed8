"""Dead letters: pages of them, each with the present state of its schedule, and the discard.

Dead letters are in the cluster's topic and in the topics of clients that have their own. A page is of one topic, and
the next topic follows where it ends. A topic only grows (until its retention ends), so the state of a dead letter is
not in it: it is in its schedule. A dead letter is *open* while its schedule is still failed with the delivery id of
the dead letter. An open one may be retried, on condition of the version that is shown with it: if two people retry
it, or one whose answer was lost, the schedule is retried once.

Or it may be *discarded*: it needs nothing any more and is open no longer, so that an operator who goes through the
open ones does not find it again. No other rule depends on it.

The discard is a mark in the pointer, not in the outcome. The pointer is written on condition of its version and
position, which prove that the failed schedule still has the key: against a retry, or another schedule under the key,
exactly one of the two writes comes first, and the second one notices. A cleanup that is repeated, by a new owner or a
zombie, writes the outcome again as it was, and would take the mark off there.

No other code reads the mark. The schedule is `failed` as before and expires as before. A retry of the key works as
before: the version has not changed, so a person who decides otherwise need not undo the discard first. The retry
replaces the pointer and with it the mark: if the schedule fails again, that is another dead letter, and open.

The dead letter of a run of a recurring job is another matter: there is no key whose state it could be compared with, and the
job goes on without it. It is open while the log has the failed run, the job is there, and the run was not retried. The
retry is a run by hand with the letter's data, whose request id follows from the delivery id: asked for twice, it runs once.
It cannot be discarded. It stops being open when the log's entry expires.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.activity import Action
from clockwork.domain.dead_letters import DeadLetter, DeadLetterTopics, LetterName, RunLetterName, retry_request
from clockwork.domain.destination import Topic
from clockwork.domain.jobs.job import JobName, JobStatus, RunNow
from clockwork.domain.rights import RESEND, Principal, Right, authorize, authorize_any
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import Contested, InvalidInput, StoreUnavailable, Unreadable
from clockwork.ports.operations import DeadLetterLog
from clockwork.requests import state
from clockwork.requests.batch import run_batch
from clockwork.requests.context import RequestContext
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs import log as job_log
from clockwork.requests.jobs.results import RunResult
from clockwork.requests.results import ChangeResult, NotFound, ScheduleView, Status, VersionCondition
from clockwork.requests.service import RequestService

STATES_AT_ONCE: Final = 16
"""Schedules of dead letters that are read side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterView:
    """A dead letter with the present state of its key."""

    letter: DeadLetter
    topic: Topic
    present: ScheduleView | None
    """None: the key is unknown by now, cannot be read, or is not named by the dead letter. Of a run of a job always."""
    run_needs_action: bool = False
    """True for a run of a job that could not be delivered and was not run again."""

    @property
    def open(self) -> bool:
        """True while the schedule is failed with this delivery and the dead letter is not discarded, or the run of a job is
        failed and was not retried."""
        return self.run_needs_action or (self._is_present_state and self.discarded_at_ms is None)

    @property
    def discarded_at_ms(self) -> int | None:
        """Time of the discard. None: not discarded, or the schedule has another state since."""
        return self.present.discarded_at_ms if self._is_present_state and self.present is not None else None

    @property
    def _is_present_state(self) -> bool:
        return self.present is not None and failed_with(self.present, self.letter.delivery_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterCursor:
    """The beginning of a page."""

    topic: Topic
    offsets: Mapping[int, int] = field(default_factory=dict)
    """Offsets by Kafka partition, as `DeadLetterLog` takes them. Empty: from the first dead letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterViewPage:
    """Some dead letters, and where to go on; None at the end of the last topic."""

    views: tuple[DeadLetterView, ...]
    next_from: DeadLetterCursor | None


class DeadLetterAdmin:
    """The dead letters of all topics, each with the present state of its schedule."""

    def __init__(self, log: DeadLetterLog, requests: RequestService, topics: DeadLetterTopics) -> None:
        self._log = log
        self._requests = requests
        self.topics = topics.every()
        """The topics that have dead letters, the cluster's first. No other may be asked for."""

    async def page(self, start: DeadLetterCursor, *, letters_max: int) -> DeadLetterViewPage:
        """Letters from `start` on, and where to go on, in the same topic or in the next; None at the end of the last one.

        Raises: Unavailable.
        """
        page = await self._log.read_letters(start.topic, start.offsets, letters_max=letters_max)
        views = await gather_bounded(partial(self._view, start.topic), page.letters, at_once=STATES_AT_ONCE)
        return DeadLetterViewPage(views=tuple(views), next_from=self._next(start.topic, page.next_from))

    async def one(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetterView | None:
        """The letter at this offset. Raises: Unavailable."""
        letter = await self._log.read_letter(topic, kafka_partition, offset)
        return None if letter is None else await self._view(topic, letter)

    async def read(self, name: RunLetterName) -> DeadLetter | None:
        """The letter of a run; None if there is none of this name at its place. Raises: Unavailable."""
        if name.topic not in self.topics:
            return None
        letter = await self._log.read_letter(name.topic, name.kafka_partition, name.offset)
        return letter if letter is not None and name.names(letter) else None

    def _next(self, topic: Topic, offsets: Mapping[int, int] | None) -> DeadLetterCursor | None:
        if offsets is not None:
            return DeadLetterCursor(topic=topic, offsets=offsets)
        later = self.topics[self.topics.index(topic) + 1 :]
        return DeadLetterCursor(topic=later[0]) if later else None

    async def _view(self, topic: Topic, letter: DeadLetter) -> DeadLetterView:
        view = partial(DeadLetterView, letter=letter, topic=topic)
        if letter.client_id is None or letter.schedule_key is None:
            return view(present=None)
        try:
            if letter.job_id is not None:
                return view(
                    present=None,
                    run_needs_action=await self._run_needs_action(letter, JobName(letter.client_id, letter.job_id)),
                )
            return view(present=await self._requests.find_unchecked(letter.client_id, letter.schedule_key))
        except Unreadable:
            # The schedule under this key cannot be read, so it can be neither retried nor discarded; the page still
            # shows the other dead letters. The same holds for a job.
            return view(present=None)

    async def _run_needs_action(self, letter: DeadLetter, name: JobName) -> bool:
        """Raises: Unavailable, Unreadable."""
        context = self._requests.context
        if letter.run_id is None or letter.due_ms is None or letter.delivery_id is None:
            return False
        async with context.deadline() as deadline:
            stored = await job_state.read_job(context, name, deadline)
            if stored is None or stored.state.status is JobStatus.DELETED:
                return False
            if not await job_log.has_failed(
                context, name, letter.run_id, due_ms=letter.due_ms, attempt=letter.run_attempt or 1
            ):
                return False
            retried = await context.jobs.read_request(name, retry_request(letter.delivery_id))
            return retried is None or retried.expires_at_s * 1_000 <= context.clock.now_ms()


@dataclass(frozen=True, slots=True)
class Discarded:
    """The dead letter is discarded, now or before."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class NotOpen:
    """The key has another state by now, as far as it can be read."""

    status: Status
    """`failed` means: with another delivery id."""
    readable: bool = True
    """False: the content cannot be read, so the delivery id is unknown."""


@dataclass(frozen=True, slots=True)
class Discarder:
    """Marks failed schedules as discarded."""

    context: RequestContext

    async def discard(
        self, client_id: ClientId, schedule_key: ScheduleKey, delivery_id: str
    ) -> Discarded | NotOpen | NotFound:
        """Notes that the schedule, failed with this delivery, needs nothing any more.

        Raises: Unavailable: it may have been done; the same request again settles it.
        """
        context = self.context
        async with context.deadline() as deadline:
            while True:
                try:
                    found = await state.read_key(context, client_id, schedule_key, deadline)
                    if found.pointer is None or found.view is None:
                        return NotFound()
                    if not failed_with(found.view, delivery_id):
                        return NotOpen(found.view.status, readable=found.view.schedule is not None)
                    return Discarded(await context.store.discard(found.pointer, at_ms=context.clock.now_ms()))
                except (Contested, StoreUnavailable) as error:
                    # A write may have been applied all the same: the next round reads.
                    await deadline.pause(f"the dead letter could not be discarded in time: {error}")


@dataclass(frozen=True, slots=True)
class NotDiscardable:
    """The letter is of a run of a job."""


@dataclass(frozen=True, slots=True)
class LetterNotFound:
    """There is no such letter of a run at this place."""


Item = LetterName | RunLetterName | InvalidInput
DiscardResult = Discarded | NotOpen | NotFound | NotDiscardable
RetryResult = ChangeResult | NotOpen | RunResult | LetterNotFound


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterBatches:
    """Many dead letters in one request, each of which succeeds or fails alone (`requests.batch`)."""

    requests: RequestService
    letters: DeadLetterAdmin
    discards: Discarder
    run_again: Callable[[DeadLetter], RunNow]
    """The request for a run by hand with the data of a letter."""

    async def discard(self, principal: Principal, items: Sequence[Item]) -> list[DiscardResult | Exception]:
        """Discards each. An item that could not be read, or is not covered, is its own result."""

        async def discard(item: Item) -> DiscardResult:
            if isinstance(item, InvalidInput):
                raise item
            authorize(principal, Right.OPERATE, item.client_id)
            if isinstance(item, RunLetterName):
                return NotDiscardable()
            result = await self.discards.discard(item.client_id, item.schedule_key, item.delivery_id)
            if isinstance(result, Discarded):
                telemetry = self.requests.context.telemetry
                telemetry.action(
                    Action(
                        kind="discarded",
                        by=principal.name,
                        client_id=item.client_id,
                        schedule_key=item.schedule_key,
                    )
                )
            return result

        timeout_ms = self.requests.batch_timeout_ms(len(items))
        return await run_batch(discard, items, key_of=_key_of, timeout_ms=timeout_ms)

    async def retry(self, principal: Principal, items: Sequence[Item]) -> list[RetryResult | Exception]:
        """Arms the schedule of each again, due now, if it is still failed with this delivery, discarded or not; runs the job
        of a run's letter by hand, with the letter's data. So the same batch again arms none twice.

        A run by hand takes the right that it takes alone, `create`. It sends what the letter has, and needs no right to read
        it."""

        async def retry(item: Item) -> RetryResult:
            if isinstance(item, InvalidInput):
                raise item
            if isinstance(item, RunLetterName):
                authorize(principal, Right.CREATE, item.client_id)
                letter = await self.letters.read(item)
                if letter is None:
                    return LetterNotFound()
                name = JobName(item.client_id, item.job_id)
                return await self.requests.jobs.start_runs(principal, name, self.run_again(letter))
            authorize_any(principal, RESEND, item.client_id)
            view = await self.requests.find_unchecked(item.client_id, item.schedule_key)
            if view is None:
                return NotFound()
            if not failed_with(view, item.delivery_id):
                return NotOpen(view.status, readable=view.schedule is not None)
            seen = VersionCondition(any_of=frozenset({view.version}))
            return await self.requests.retry_failed(principal, item.client_id, item.schedule_key, condition=seen)

        timeout_ms = self.requests.batch_timeout_ms(len(items))
        return await run_batch(retry, items, key_of=_key_of, timeout_ms=timeout_ms)


def _key_of(item: Item) -> Hashable | None:
    match item:
        case LetterName():
            return item.client_id, item.schedule_key
        case RunLetterName():
            return JobName(item.client_id, item.job_id), "job"
    return None


def failed_with(view: ScheduleView, delivery_id: str | None) -> bool:
    """True if the schedule is failed with this delivery id."""
    schedule = view.schedule
    return view.status is Status.FAILED and schedule is not None and schedule.delivery_id == delivery_id
