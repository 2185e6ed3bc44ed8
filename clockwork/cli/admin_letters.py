"""`clockwork admin dead-letters …`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clockwork.cli import shown
from clockwork.cli.admin_asks import as_json, json_option, pages
from clockwork.cli.connection import Connection, connected
from clockwork.cli.outcomes import CONFLICT, code_of, line_of
from clockwork.client import CallFailed, TooMany, Unavailable
from clockwork.client.aio import path_of, read_document
from clockwork.client.transport import Transport
from clockwork.schema.admin_documents import DeadLetterDocument, DeadLettersDocument

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH: Final = "/admin/dead-letters"


class Wanted(NamedTuple):
    """Which letters a command is about; None: any."""

    client_id: str | None
    topic: str | None
    reason: str | None
    lies_in: str | None

    def cover(self, letter: DeadLetterDocument) -> bool:
        told = ((self.client_id, letter.client_id), (self.topic, letter.topic), (self.reason, letter.reason))
        return all(wanted in (None, found) for wanted, found in told)


@click.group("dead-letters")
def dead_letters() -> None:
    """What was given up, and another chance for it."""


def _in_option(help_: str) -> Callable[[_Command], _Command]:
    return click.option("--in", "lies_in", metavar="TOPIC", help=help_)


def _filters(command: _Command) -> _Command:
    for option in (
        click.option("--reason", help="Only those that failed for this reason."),
        click.option("--topic", help="Only those that should have gone to this topic."),
        click.option("--client", "client_id", help="Only those of this client."),
        _in_option("Only those that lie in this topic; by default all."),
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
    lies_in: str | None,
    all_: bool,
    json_: bool,
) -> None:
    """List the dead letters that are open, page by page through their topics; those of one Kafka partition oldest first."""

    async def listed(http: Transport) -> None:
        table = _table()
        try:
            async for letter in _letters(http, Wanted(client_id, topic, reason, lies_in), only_open=not all_):
                if json_:
                    click.echo(as_json(letter))
                else:
                    _add(table, letter)
        finally:
            # What was found is of use, also where one of the topics cannot be read.
            if not json_:
                Console(soft_wrap=True).print(table)

    connection.run(listed)


@dead_letters.command("show", epilog="\b\nExample:\n  clockwork admin dead-letters show 3 1207")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@_in_option("Where it lies; by default in the cluster's topic.")
@connected
def show_letter(connection: Connection, partition: int, offset: int, lies_in: str | None) -> None:
    """Show one dead letter by its place, as JSON."""

    async def shown_(http: Transport) -> None:
        click.echo(as_json(await _letter(http, partition, offset, lies_in)))

    connection.run(shown_)


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
    """Arm schedules again that failed, for now. The key needs the right `create` besides.

    Only while the schedule is still failed with the delivery that the letter is of: what was retried, replaced or
    cancelled since is left alone, and the same command again arms nothing twice. One that was discarded is armed if it is
    named, and not by --all.
    """
    connection.run(_Errand(act=_retry, done="armed").on(partition, offset, all_, Wanted(**filters)))


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
    """Say that dead letters need nothing any more, so that they are open no longer.

    The letters stay in their topic, and the schedules failed. Only while a schedule is still failed with the delivery that
    the letter is of. A retry arms it all the same.
    """
    connection.run(_Errand(act=_discard, done="discarded").on(partition, offset, all_, Wanted(**filters)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Errand:
    """What is done to letters, one by one."""

    act: Callable[[Transport, DeadLetterDocument], Awaitable[None]]
    done: str
    """What a letter is then."""

    def on(
        self, partition: int | None, offset: int | None, all_: bool, wanted: Wanted
    ) -> Callable[[Transport], Awaitable[None]]:
        """To one letter, or to all that are open and wanted."""
        filtered = any((wanted.client_id, wanted.topic, wanted.reason))
        if partition is not None and offset is not None and not all_ and not filtered:
            return partial(self._on_one, partition=partition, offset=offset, lies_in=wanted.lies_in)
        if all_ and partition is None:
            return partial(self._on_all, wanted=wanted)
        raise click.UsageError("give PARTITION and OFFSET, or --all with any filters")

    async def _on_one(self, http: Transport, *, partition: int, offset: int, lies_in: str | None) -> None:
        letter = await _letter(http, partition, offset, lies_in)
        if not letter.open and letter.discarded_at_ms is None:
            click.echo(f"not open: {_named(letter)} is {letter.status or 'unknown by now'}", err=True)
            raise click.exceptions.Exit(CONFLICT)
        await self.act(http, letter)
        click.echo(f"{self.done}: {_named(letter)}")

    async def _on_all(self, http: Transport, *, wanted: Wanted) -> None:
        """Each schedule once, or one that fails again at once would never let it end."""
        over: set[tuple[str | None, str | None]] = set()
        refused: list[int] = []
        async for letter in _letters(http, wanted, only_open=True):
            key = (letter.client_id, letter.schedule_key)
            if key in over:
                continue
            try:
                await self.act(http, letter)
                over.add(key)
            except (TooMany, Unavailable):
                click.echo(f"{len(over)} {self.done}; the same command again goes on from there", err=True)
                raise
            except CallFailed as failure:
                click.echo(f"{_named(letter)}: {line_of(failure)}", err=True)
                refused.append(code_of(failure))
        click.echo(f"{len(over)} {self.done}, {len(refused)} refused")
        if refused:
            raise click.exceptions.Exit(min(refused))


async def _retry(http: Transport, letter: DeadLetterDocument) -> None:
    """On condition of the version that was seen failed."""
    path = f"{path_of(letter.client_id or '', letter.schedule_key or '')}/retry"
    await http.ask("POST", path, body={}, headers={"If-Match": f'"{letter.version}"'})


async def _discard(http: Transport, letter: DeadLetterDocument) -> None:
    names = {"clientId": letter.client_id, "scheduleKey": letter.schedule_key, "deliveryId": letter.delivery_id}
    await http.ask("POST", f"{_PATH}/discard", body=names)


async def _letter(http: Transport, partition: int, offset: int, lies_in: str | None) -> DeadLetterDocument:
    path = f"{_PATH}/{partition}/{offset}"
    return read_document(DeadLetterDocument, await http.ask("GET", path, query=_lying_in(lies_in)))


def _lying_in(topic: str | None) -> dict[str, str]:
    return {} if topic is None else {"deadLetterTopic": topic}


async def _letters(http: Transport, wanted: Wanted, *, only_open: bool) -> AsyncIterator[DeadLetterDocument]:
    async for page in pages(http, DeadLettersDocument, _PATH, _lying_in(wanted.lies_in)):
        for letter in page.dead_letters:
            if wanted.cover(letter) and (letter.open or not only_open):
                yield letter


def _named(letter: DeadLetterDocument) -> str:
    return f"{letter.client_id} {shown.plain(letter.schedule_key or '')}"


def _table() -> Table:
    table = Table()
    for name in ("in", "place", "at", "client", "key", "topic", "reason", "attempts", "now", "open"):
        table.add_column(name, overflow="fold")
    return table


def _add(table: Table, letter: DeadLetterDocument) -> None:
    told = (letter.client_id, letter.schedule_key, letter.topic, letter.reason, letter.attempts, letter.status)
    table.add_row(
        letter.dead_letter_topic,
        f"{letter.partition} {letter.offset}",
        shown.instant(letter.at_ms),
        *(escape(shown.plain(str(each))) if each is not None else "" for each in told),
        "yes" if letter.open else "" if letter.discarded_at_ms is None else "discarded",
    )
