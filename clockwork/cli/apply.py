"""`clockwork job apply`: makes a client's jobs those of a file.

Every declared job is read first, and compared with its declaration: the plan is known, printed by --dry-run, and asked about
where it deletes, before anything is changed. Each change is a `PUT` on condition of the version that was read, so a change
that another request makes meanwhile is never undone: that job is refused, and the same command again plans anew.

A job that stands as it is declared is not touched: its armed run stays, and it gets no new version. What a declaration
leaves out has its default, also where the stored job has another value, so the file alone says how its jobs are. Pauses are
no part of a declaration: a paused job stays paused.

Jobs are read and changed some at a time, and told in the order of the file. Deletes begin when all else has ended: a job
that was refused may be the successor of one that would be deleted.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Final, Literal

import click

from clockwork.cli.connection import Connection, ServiceCommand, connected, pages
from clockwork.cli.exit_codes import exit_code, failure_line
from clockwork.cli.job_render import run_words
from clockwork.cli.jobs_file import LABEL, JobsFile, JobsFileRefused, read_jobs_file
from clockwork.cli.render import dump_json, json_option, printable
from clockwork.client import CallFailed, InvalidRequest, Job, NotFound, TooMany, Unavailable
from clockwork.client.aio import read_document
from clockwork.client.jobs import jobs_query, path_of_job
from clockwork.client.transport import Transport
from clockwork.clock import SystemClock
from clockwork.concurrency import gather_bounded
from clockwork.schema.job import JobForm, JobsDocument
from clockwork.schema.json import canonical
from clockwork.schema.schedule import DeliveryForm

AT_ONCE: Final = 8
"""Requests side by side. A file of hundreds of jobs takes seconds, and leaves most of a node to others."""
Action = Literal["create", "change", "keep", "delete"]
_DONE: Final[Mapping[Action, str]] = {
    "create": "created",
    "change": "changed",
    "keep": "unchanged",
    "delete": "deleted",
}
_FIELDS: Final = frozenset(str(each.alias) for each in JobForm.model_fields.values()) - {
    "clientId",
    "jobId",
    "delivery",
}
_DELIVERY: Final = frozenset(str(each.alias) for each in DeliveryForm.model_fields.values())
_TOGETHER: Final = (frozenset({"taskData", "taskDataEncoding"}), frozenset({"deadline", "onLate"}))
"""Fields of which the one means nothing without the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One job of the plan."""

    job_id: str
    action: Action
    present: Job | None = None
    """The job as it was read; None: there is none, or it is deleted."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """The create, or the change."""
    fields: Sequence[str] = ()
    """Fields that a change sets or removes."""

    @property
    def status(self) -> str:
        """The status of a job that is not active, for people; else empty."""
        return "" if self.present is None or self.present.status == "active" else f" ({self.present.status})"


@click.command(
    "apply",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n"
    "  clockwork job apply jobs.toml --dry-run\n"
    "  clockwork job apply jobs.toml --profile test --prune --yes\n\n"
    "docs/jobs-file.md describes the file. The same command again changes nothing.",
)
@click.argument("file", type=click.File("rb"))
@click.option("--profile", help="Lays this profile of the file over its jobs.")
@click.option("--prune", is_flag=True, help="Delete jobs with this file's label that are not in it. Asks first.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@json_option
@connected
def apply_command(
    connection: Connection, file: IO[bytes], profile: str | None, prune: bool, yes: bool, dry_run: bool, json_: bool
) -> None:
    """Create and change jobs so that they are as FILE declares them; unchanged ones are left alone.

    Nothing is sent if any entry of the file is wrong. A job that is refused does not stop the others; --prune deletes
    nothing then.
    """
    try:
        declared = read_jobs_file(file.read(), profile=profile, now_ms=SystemClock().now_ms())
    except JobsFileRefused as refused:
        for problem in refused.problems:
            click.echo(f"clockwork: {file.name}: {printable(problem)}", err=True)
        raise click.exceptions.Exit(2) from refused
    plan = connection.run(lambda transport: _plan(transport, declared, prune=prune))
    if dry_run:
        for step in plan:
            _tell(step, None, json_=json_)
        return
    deleted = [step.job_id for step in plan if step.action == "delete"]
    if deleted and not yes:
        click.confirm(f"Delete {', '.join(map(printable, deleted))}?", abort=True, err=True)
    refused_codes = connection.run(lambda transport: carry_out(transport, declared, plan, json_=json_))
    if refused_codes:
        raise click.exceptions.Exit(min(refused_codes))


# --- the plan


async def _plan(transport: Transport, declared: JobsFile, *, prune: bool) -> list[Step]:
    """Raises: CallFailed."""
    steps = await gather_bounded(partial(_step, transport, declared), declared.jobs, at_once=AT_ONCE)
    if prune:
        query = jobs_query(declared.client_id, label=(LABEL, declared.name))
        async for page in pages(transport, JobsDocument, "/jobs", query):
            gone = [each for each in page.jobs if each.job_id not in declared.jobs]
            steps += [Step(job_id=each.job_id, action="delete", present=each) for each in gone]
    return steps


async def _step(transport: Transport, declared: JobsFile, job_id: str) -> Step:
    try:
        answer = await transport.request("GET", path_of_job(declared.client_id, job_id))
        present = read_document(Job, answer)
    except NotFound:
        present = None
    if present is None or present.status == "deleted":
        return Step(job_id=job_id, action="create", body=declared.jobs[job_id])
    return _change(declared, job_id, present)


def _change(declared: JobsFile, job_id: str, present: Job) -> Step:
    wanted = declared.wanted(job_id, created_ms=present.created_at_ms)
    stored = present.model_dump(mode="json", by_alias=True, exclude_unset=True)
    own = _differing(wanted, stored, _FIELDS)
    of_delivery = _differing(wanted["delivery"], stored["delivery"], _DELIVERY)
    body = {**own, **({"delivery": of_delivery} if of_delivery else {})}
    fields = [*sorted(own), *(f"delivery.{name}" for name in sorted(of_delivery))]
    return Step(job_id=job_id, action="change" if body else "keep", present=present, body=body, fields=fields)


def _differing(wanted: Mapping[str, Any], stored: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The wanted values that are not as stored; null for those that should go."""
    differing = {name for name in names if _text(wanted, name) != _text(stored, name)}
    for together in _TOGETHER:
        if differing & together:
            differing |= together & set(names)
    # A field that has a value on neither side is left out: it was added only because a field that goes with it differs.
    return {name: wanted.get(name) for name in differing if name in wanted or name in stored}


def _text(document: Mapping[str, Any], name: str) -> bytes | None:
    return canonical(document[name]) if name in document else None


# --- its execution


async def carry_out(transport: Transport, declared: JobsFile, plan: Sequence[Step], *, json_: bool) -> list[int]:
    """Carries out the plan, and tells of each step in the plan's order. Returns the exit codes of those that were refused.

    Raises: CallFailed: the outcome of a step is unknown; no other was begun since.
    """
    deletes = [step for step in plan if step.action == "delete"]
    codes = await _side_by_side(transport, declared, [step for step in plan if step.action != "delete"], json_=json_)
    if codes:
        for step in deletes:
            click.echo(f"{printable(step.job_id)}: not deleted, because others were refused", err=True)
        return codes
    return await _side_by_side(transport, declared, deletes, json_=json_)


async def _side_by_side(transport: Transport, declared: JobsFile, steps: Sequence[Step], *, json_: bool) -> list[int]:
    """Takes steps that do not depend on each other. Returns and raises as `carry_out`."""
    outcomes: list[Job | CallFailed | None] = [None] * len(steps)
    codes: list[int] = []
    unknown: list[CallFailed] = []
    told = 0

    def tell(upto: int) -> None:
        nonlocal told
        for step, outcome in zip(steps[told:upto], outcomes[told:upto], strict=True):
            if isinstance(outcome, TooMany | Unavailable):
                click.echo(f"stopped at {printable(step.job_id)}; the same command again goes on from there", err=True)
            elif isinstance(outcome, CallFailed):
                codes.append(exit_code(outcome))
                _tell_refused(step, outcome)
            elif outcome is not None:
                _tell(step, outcome, json_=json_)
        told = upto

    async def take(number: int) -> None:
        if unknown:
            return
        try:
            outcomes[number] = await _do(transport, declared, steps[number])
        except CallFailed as failure:
            outcomes[number] = failure
            if isinstance(failure, TooMany | Unavailable):
                unknown.append(failure)
        tell(next((place for place in range(told, len(steps)) if outcomes[place] is None), len(steps)))

    await gather_bounded(take, range(len(steps)), at_once=AT_ONCE)
    tell(len(steps))  # those behind a step that was not begun
    if unknown:
        raise unknown[0]
    return codes


def _tell_refused(step: Step, failure: CallFailed) -> None:
    errors = failure.errors if isinstance(failure, InvalidRequest) else ()
    for line in [f"{each.field}: {each.message}" for each in errors] or [failure_line(failure)]:
        click.echo(f"{printable(step.job_id)}: {printable(line)}", err=True)


async def _do(transport: Transport, declared: JobsFile, step: Step) -> Job:
    """Takes one step; returns the job as it is then. Raises: CallFailed."""
    path = path_of_job(declared.client_id, step.job_id)
    if step.present is None:
        created = read_document(Job, await transport.request("POST", "/jobs", body=step.body))
        if created.status != "deleted":
            return created
        # The very create that made the job before it was deleted; it may have been changed since.
        restored = read_document(Job, await transport.request("POST", f"{path}/restore"))
        return await _do(transport, declared, _change(declared, step.job_id, restored))
    if step.action == "keep":
        return step.present
    condition = {"If-Match": f'"{step.present.version}"'}
    if step.action == "delete":
        return read_document(Job, await transport.request("DELETE", path, headers=condition))
    return read_document(Job, await transport.request("PUT", path, body=step.body, headers=condition))


def _tell(step: Step, job: Job | None, *, json_: bool) -> None:
    """Prints one step; `job`: as it is after it, None: it was not taken."""
    if json_:
        document: dict[str, Any] = {"jobId": step.job_id, "action": step.action, "fields": list(step.fields)}
        if job is not None:
            document["job"] = job.model_dump(mode="json", by_alias=True, exclude_unset=True)
        click.echo(dump_json(document, sys.stdout.encoding))
        return
    kept = step.action == "keep"
    word = _DONE[step.action] if job is not None or kept else f"would {step.action}"
    fields = f": {', '.join(step.fields)}" if step.fields else ""
    click.echo(f"{word:<12} {printable(step.job_id)}{step.status if kept else ''}{fields}")
    for run in (job.in_flight if job is not None else None) or ():
        click.echo(f"{'':<12} {run_words(run)}: may still be delivered as before")
