"""`clockwork admin dead-letters …`: the records that could not be delivered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import click

from clockwork.cli.connection import Connection, ServiceGroup, connected, pages
from clockwork.cli.exit_codes import CONFLICT, exit_code, failure_line
from clockwork.cli.render import cell, instant, json_option, print_json, printable
from clockwork.cli.table import Table, print_table
from clockwork.client import CallFailed, TooMany, Unavailable
from clockwork.client.aio import path_of, read_document
from clockwork.client.transport import Transport, failure_of_item
from clockwork.schema.dead_letter import DeadLetterDocument, DeadLettersDocument

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH: Final = "/admin/dead-letters"


class Filter(NamedTuple):
    """The dead letters that a command is about. None matches any."""

    client_id: str | None
    topic: str | None
    reason: str | None
    stored_in: str | None
    """The dead-letter topic."""

    def matches(self, letter: DeadLetterDocument) -> bool:
        """Compares all but the dead-letter topic, which the service filters by."""
        pairs = ((self.client_id, letter.client_id), (self.topic, letter.topic), (self.reason, letter.reason))
        return all(wanted in (None, found) for wanted, found in pairs)


@click.group("dead-letters", cls=ServiceGroup)
def dead_letters() -> None:
    """List, retry and discard what could not be delivered."""


def _in_option(help_: str) -> Callable[[_Command], _Command]:
    return click.option("--in", "stored_in", metavar="TOPIC", help=help_)


def _filters(command: _Command) -> _Command:
    for option in (
        click.option("--reason", help="Only those that failed for this reason."),
        click.option("--topic", help="Only those that should have gone to this topic."),
        click.option("--client", "client_id", help="Only those of this client."),
        _in_option("Only those stored in this dead-letter topic; by default all."),
    ):
        command = option(command)
    return command


@dead_letters.command("list", epilog="\b\nExample:\n  clockwork admin dead-letters list --topic orderTopic --json")
@_filters
@click.option("--all", "all_", is_flag=True, help="Also those that were retried, replaced or discarded.")
@json_option
@connected
def list_letters(
    connection: Connection,
    client_id: str | None,
    topic: str | None,
    reason: str | None,
    stored_in: str | None,
    all_: bool,
    json_: bool,
) -> None:
    """List the open dead letters, topic by topic; within a Kafka partition oldest first."""

    async def list_all(transport: Transport) -> None:
        table = Table(
            *("in", "place", "at", "client", "key", "topic", "reason", "attempts", "now", "open"),
            least=("attempts", "topic", "at", "open", "in"),
        )
        try:
            async for letter in _letters(transport, Filter(client_id, topic, reason, stored_in), only_open=not all_):
                if json_:
                    print_json(letter)
                else:
                    _add_row(table, letter)
        finally:
            # Letters found so far are of use, also where one of the topics cannot be read.
            if not json_:
                print_table(table)

    connection.run(list_all)


@dead_letters.command("show", epilog="\b\nExample:\n  clockwork admin dead-letters show 3 1207")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@_in_option("The dead-letter topic that holds it; by default the cluster's.")
@connected
def show_letter(connection: Connection, partition: int, offset: int, stored_in: str | None) -> None:
    """Show the dead letter at a Kafka PARTITION and OFFSET, as JSON."""

    async def read_letter(transport: Transport) -> DeadLetterDocument:
        return await _letter(transport, partition, offset, stored_in)

    print_json(connection.run(read_letter))


def _one_or_all(command: _Command) -> _Command:
    for option in (
        _filters,
        click.option("--all", "all_", is_flag=True, help="All that are open."),
        click.argument("offset", type=click.IntRange(min=0), required=False),
        click.argument("partition", type=click.IntRange(min=0), required=False),
    ):
        command = option(command)
    return command


@dead_letters.command(
    "retry",
    epilog="\b\nExamples:\n  clockwork admin dead-letters retry 3 1207\n"
    "  clockwork admin dead-letters retry --all --topic orderTopic",
)
@_one_or_all
@connected
def retry_letters(
    connection: Connection, /, partition: int | None, offset: int | None, all_: bool, **filters: Any
) -> None:
    """Retry failed schedules now. For runs of jobs the key needs the right `create`.

    A schedule is retried only while it is still failed with the delivery of this letter: one that was retried, replaced or
    cancelled since is left alone, and the same command again retries nothing twice. A discarded letter is retried if its
    place is given, and not by --all. A run of a recurring job is run again, once, with the letter's data.
    """
    connection.run(_Action(apply=_retry, done="armed").to(partition, offset, all_, Filter(**filters)))


@dead_letters.command(
    "discard",
    epilog="\b\nExamples:\n  clockwork admin dead-letters discard 3 1207\n"
    "  clockwork admin dead-letters discard --all --client shop --reason expired",
)
@_one_or_all
@connected
def discard_letters(
    connection: Connection, /, partition: int | None, offset: int | None, all_: bool, **filters: Any
) -> None:
    """Close dead letters that need no retry.

    The letters stay in their topic, and the schedules stay failed. A letter is discarded only while its schedule is still
    failed with the delivery of this letter. It can be retried all the same. Letters of runs of jobs are left alone: they
    close when the retention of the job's log ends.
    """
    connection.run(
        _Action(apply=_discard, done="discarded", of_jobs=False).to(partition, offset, all_, Filter(**filters))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Action:
    """A call for one dead letter, and the word for letters after it."""

    apply: Callable[[Transport, DeadLetterDocument], Awaitable[None]]
    done: str
    of_jobs: bool = True
    """False: it is not for letters of runs of jobs."""

    def to(
        self, partition: int | None, offset: int | None, all_: bool, wanted: Filter
    ) -> Callable[[Transport], Awaitable[None]]:
        """The work for one letter, or for all that are open and match. Raises: click.UsageError."""
        filtered = any((wanted.client_id, wanted.topic, wanted.reason))
        if partition is not None and offset is not None and not all_ and not filtered:
            return partial(self._to_one, partition=partition, offset=offset, stored_in=wanted.stored_in)
        if all_ and partition is None:
            return partial(self._to_all, wanted=wanted)
        raise click.UsageError("give PARTITION and OFFSET, or --all with any filters")

    async def _to_one(self, transport: Transport, *, partition: int, offset: int, stored_in: str | None) -> None:
        letter = await _letter(transport, partition, offset, stored_in)
        if not letter.open and letter.discarded_at_ms is None:
            click.echo(f"not open: {_named(letter)} is {letter.status or 'unknown by now'}", err=True)
            raise click.exceptions.Exit(CONFLICT)
        if letter.job_id is not None and not self.of_jobs:
            click.echo(
                f"{_named(letter)}: is of a run of a job, and closes when the retention of its log ends", err=True
            )
            raise click.exceptions.Exit(CONFLICT)
        await self.apply(transport, letter)
        click.echo(f"{self.done}: {_named(letter)}")

    async def _to_all(self, transport: Transport, *, wanted: Filter) -> None:
        """Acts on each schedule once: one that fails again at once would otherwise never let the command end."""
        done: set[tuple[str | None, str | None, str | None]] = set()
        refused: list[int] = []
        async for letter in _letters(transport, wanted, only_open=True):
            key = (letter.client_id, letter.schedule_key, letter.run_id)
            if key in done or (letter.job_id is not None and not self.of_jobs):
                continue
            try:
                await self.apply(transport, letter)
                done.add(key)
            except (TooMany, Unavailable):
                click.echo(f"{len(done)} {self.done}; the same command again goes on from there", err=True)
                raise
            except CallFailed as failure:
                click.echo(f"{_named(letter)}: {failure_line(failure)}", err=True)
                refused.append(exit_code(failure))
        click.echo(f"{len(done)} {self.done}, {len(refused)} refused")
        if refused:
            raise click.exceptions.Exit(min(refused))


async def _retry(transport: Transport, letter: DeadLetterDocument) -> None:
    """Retries the schedule if it still has the version that was seen failed; runs the run of a job again."""
    if letter.job_id is not None:
        names = {"clientId": letter.client_id, "jobId": letter.job_id, "deliveryId": letter.delivery_id}
        place = {"deadLetterTopic": letter.dead_letter_topic, "partition": letter.partition, "offset": letter.offset}
        await _acted(transport, "retry", names | place)
        return
    path = f"{path_of(letter.client_id or '', letter.schedule_key or '')}/retry"
    await transport.request("POST", path, body={}, headers={"If-Match": f'"{letter.version}"'})


async def _discard(transport: Transport, letter: DeadLetterDocument) -> None:
    names = {"clientId": letter.client_id, "scheduleKey": letter.schedule_key, "deliveryId": letter.delivery_id}
    await _acted(transport, "discard", names)


async def _acted(transport: Transport, action: str, item: dict[str, Any]) -> None:
    """Acts on one letter by a batch of one."""
    answer = await transport.request("POST", f"{_PATH}/{action}", body={"deadLetters": [item]}, items=1)
    match answer:
        case {"results": [{"status": int(status)} as result]}:
            if status >= 300:
                raise failure_of_item(result)
        case _:
            raise Unavailable("The answer is none of this API: results")


async def _letter(transport: Transport, partition: int, offset: int, stored_in: str | None) -> DeadLetterDocument:
    path = f"{_PATH}/{partition}/{offset}"
    return read_document(DeadLetterDocument, await transport.request("GET", path, query=_topic_query(stored_in)))


def _topic_query(topic: str | None) -> dict[str, str]:
    return {} if topic is None else {"deadLetterTopic": topic}


async def _letters(transport: Transport, wanted: Filter, *, only_open: bool) -> AsyncIterator[DeadLetterDocument]:
    async for page in pages(transport, DeadLettersDocument, _PATH, _topic_query(wanted.stored_in)):
        for letter in page.dead_letters:
            if wanted.matches(letter) and (letter.open or not only_open):
                yield letter


def _named(letter: DeadLetterDocument) -> str:
    return f"{printable(letter.client_id or '')} {printable(letter.schedule_key or '')}"


def _add_row(table: Table, letter: DeadLetterDocument) -> None:
    reason = letter.reason if letter.last_refusal is None else f"{letter.reason} ({letter.last_refusal})"
    values = (letter.client_id, letter.schedule_key, letter.topic, reason, letter.attempts, letter.status)
    table.add_row(
        cell(letter.dead_letter_topic),
        f"{letter.partition} {letter.offset}",
        instant(letter.at_ms),
        *(cell(str(value)) if value is not None else "" for value in values),
        "yes" if letter.open else "" if letter.discarded_at_ms is None else "discarded",
    )
