"""What a schedule is to be, as options of `create` and `change`, and as arguments of the client's calls."""

from collections.abc import Callable
from datetime import timedelta
from typing import IO, Any, Final, TypeVar

import click

from clockwork.cli.values import Duration, headers, payload
from clockwork.client import RetryPolicy

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MS: Final = timedelta(milliseconds=1)
_OPTIONS: Final = (
    click.option("--data", help="The payload, as JSON."),
    click.option("--text", help="The payload, as text."),
    click.option("--data-file", type=click.File("rb"), help="The payload, byte by byte; - is standard input."),
    click.option("--ordering-key", help="Order is kept per topic and ordering key. Default: the schedule key."),
    click.option("--guarantee", type=click.Choice(["exactly_once", "at_least_once"])),
    click.option("--header", multiple=True, metavar="NAME=VALUE", help="Of the record; repeatable."),
    click.option("--deadline", type=Duration(), help="How long after its time it is late."),
    click.option("--on-late", type=click.Choice(["deliver", "drop", "dead_letter"]), help="What becomes of it then."),
    click.option("--retry-attempts", type=int, help="How often a record is tried that its topic refuses."),
    click.option("--retry-initial", type=Duration(), help="First wait between two attempts."),
    click.option("--retry-max", type=Duration(), help="Longest wait."),
    click.option("--retry-factor", type=float, help="By which a wait is longer than the one before."),
    click.option("--retry-jitter", type=float, help="By how much a wait may be shorter, as a share."),
)


def content_options(command: _Command) -> _Command:
    """In the order of `--help`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def content_of(
    *,
    data: str | None,
    text: str | None,
    data_file: IO[bytes] | None,
    ordering_key: str | None,
    guarantee: str | None,
    header: tuple[str, ...],
    deadline: timedelta | None,
    on_late: str | None,
    **retry: Any,
) -> dict[str, Any]:
    """Arguments of the client's `create` and `reschedule`; `data` is absent if none was given. Raises: UsageError."""
    given = payload(data, text, data_file)
    return ({} if given is None else {"data": given[0]}) | {
        "ordering_key": ordering_key,
        "guarantee": guarantee,
        "headers": headers(header),
        "deadline_ms": _ms(deadline),
        "on_late": on_late,
        "retry": _policy(**retry),
    }


def _policy(
    *,
    retry_attempts: int | None,
    retry_initial: timedelta | None,
    retry_max: timedelta | None,
    retry_factor: float | None,
    retry_jitter: float | None,
) -> RetryPolicy | None:
    policy = RetryPolicy(
        attempts=retry_attempts,
        initial_ms=_ms(retry_initial),
        max_ms=_ms(retry_max),
        factor=retry_factor,
        jitter=retry_jitter,
    )
    return None if policy == RetryPolicy() else policy


def _ms(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // _MS
