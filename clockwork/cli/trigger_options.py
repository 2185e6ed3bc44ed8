"""Options that make a trigger, for commands that create a job or look ahead."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from clockwork.cli.values import INTEGER_MAX, Duration, Time, json_object, with_options
from clockwork.client import After, Cron, Every, Exclude, Trigger

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MS: Final = timedelta(milliseconds=1)
_OF_CRON: Final = ("zone", "dialect", "days", "dst_gap", "dst_overlap", "calendar", "on_excluded")
NAMES: Final = (
    *("every", "delay", "trigger", *_OF_CRON),
    *("anchor", "start", "end", "max_runs", "jitter", "jitter_per"),
)
"""Parameters that the options make, but for the cron expression."""
_OPTIONS: Final = (
    click.option("--every", type=Duration(), help="At one distance from each other, such as 30s."),
    click.option("--after", "delay", type=Duration(), help="So long after the end of the last run, such as 5m."),
    click.option("--trigger", help="Any trigger, as the JSON that the HTTP API takes."),
    click.option("--zone", help="Of a cron expression: time zone, such as Europe/Berlin. By default UTC."),
    click.option(
        "--dialect",
        type=click.Choice(["unix", "quartz", "spring", "aws"]),
        help="Of a cron expression. By default unix for five fields.",
    ),
    click.option("--days", type=click.Choice(["or", "and"]), help="Of a cron expression with two day fields."),
    click.option(
        "--dst-gap",
        type=click.Choice(["next", "shift", "skip"]),
        help="Times that do not exist, where clocks are put forward.",
    ),
    click.option(
        "--dst-overlap",
        type=click.Choice(["first", "second", "both"]),
        help="Times that exist twice, where clocks are put back.",
    ),
    click.option("--calendar", help="Of a cron expression: named calendar of days and hours without runs."),
    click.option(
        "--on-excluded",
        type=click.Choice(["skip", "next", "previous"]),
        help="Of --calendar: times on an excluded day do not run, or do on the next or the previous open day.",
    ),
    click.option("--anchor", type=Time(), help="Of --every: a fire time, from which all others follow."),
    click.option("--start", type=Time(), help="No fire time before this."),
    click.option("--end", type=Time(), help="No fire time from this on."),
    click.option("--max-runs", type=click.IntRange(1, INTEGER_MAX), help="Runs in all, skipped ones aside."),
    click.option("--jitter", type=Duration(), help="Greatest delay of a delivery behind its fire time."),
    click.option("--jitter-per", type=click.Choice(["job", "run"]), help="One delay for all runs, or one for each."),
)


def trigger_options(command: _Command) -> _Command:
    """Adds all options of a trigger but its cron expression."""
    return with_options(_OPTIONS, command)


def trigger_of(
    *,
    cron: str | None,
    every: timedelta | None,
    delay: timedelta | None,
    trigger: str | None,
    anchor: int | None,
    **options: Any,
) -> Trigger | None:
    """The trigger that the options give; None: none. Raises: click.UsageError; also for an option without effect."""
    kinds = {"cron": cron, "--every": every, "--after": delay, "--trigger": trigger}
    chosen = [name for name, value in kinds.items() if value is not None]
    if len(chosen) > 1:
        raise click.UsageError("a cron expression, --every, --after and --trigger exclude each other")
    of_cron = {name: options.pop(name) for name in _OF_CRON}
    # The rest are bounds, which every trigger has.
    for name, value, kind in (
        *((name, value, "cron") for name, value in of_cron.items()),
        ("anchor", anchor, "--every"),
    ):
        if value is not None and chosen != [kind]:
            needed = "a cron expression" if kind == "cron" else kind
            raise click.UsageError(f"--{name.replace('_', '-')} has an effect only with {needed}")
    if trigger is not None or not chosen:
        without = [name for name, value in options.items() if value is not None]
        if without:
            raise click.UsageError(f"--{without[0].replace('_', '-')} needs a cron expression, --every or --after")
    if cron is not None:
        gap, overlap, calendar = of_cron.pop("dst_gap"), of_cron.pop("dst_overlap"), of_cron.pop("calendar")
        if of_cron["on_excluded"] is not None and calendar is None:
            raise click.UsageError("--on-excluded has an effect only with --calendar")
        exclude = None if calendar is None else Exclude(calendar=calendar)
        return Cron(cron, gap=gap, overlap=overlap, exclude=exclude, **of_cron, **options)
    if every is not None:
        return Every(milliseconds=every // _MS, anchor=anchor, **options)
    if delay is not None:
        return After(milliseconds=delay // _MS, **options)
    return None if trigger is None else json_object("--trigger", trigger.encode())
