"""`JobStore` on DynamoDB: the table `jobs`, and rows in transactions with it.

Every change of a job is one transaction that puts its state anew on condition of the revision that was read. The condition
alone proves an earlier copy, too: a state that came back with the failure, and equals the one that was to be put, was put by
this very change, and everything else with it.
"""

from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any, Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.jobs.calendar import CalendarName
from clockwork.domain.jobs.job import Job, JobName, JobState, JobTransaction, RunCompletion, RunDelivery, RunRequest
from clockwork.domain.position import Position
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import ConditionFailed, StoreThrottled, Unreadable
from clockwork.ports.jobs import LogPage, NamePage, StaleRevision
from clockwork.settings.model import DynamoSettings
from clockwork.stores.checks import readable
from clockwork.stores.dynamodb import codec, job_codec, transactions
from clockwork.stores.dynamodb.attributes import Item, number
from clockwork.stores.dynamodb.batching import (
    CALLS_AT_ONCE,
    BatchedReads,
    BatchedWrites,
    GroupCommit,
    Transaction,
    insert_once,
    read_all,
    retry_on_conflict,
    transact,
    write_once,
)
from clockwork.stores.dynamodb.calendars import DynamoCalendars
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.codec import INDEX, LISTED_UNDER
from clockwork.stores.dynamodb.errors import Refused
from clockwork.stores.dynamodb.transactions import token_of
from clockwork.stores.job_forms import CREATED_AT

_STATE: Final = 0
"""Index of the state's Put in a change."""
DEFINITIONS_PER_READ: Final = 20
"""Definitions in one batched read: each has the data of its job, up to 256 KiB."""


class DynamoJobStore(DynamoCalendars):
    """See `JobStore`. Raises, from any method: StoreUnavailable and below."""

    def __init__(self, client: DynamoClient) -> None:
        super().__init__(client)
        self._settings = client.settings
        table = self._table
        self._changes = GroupCommit(client)
        self._definitions = BatchedReads(client, table, items_max=DEFINITIONS_PER_READ)
        self._run_ends = BatchedWrites(partial(write_once, client, table))
        self._first_run_ends = BatchedWrites(partial(insert_once, client, table))

    # --- one job

    async def read_state(self, name: JobName, *, committed: bool = False) -> JobState | None:
        """See `JobStore`."""
        key = job_codec.state_key(name)
        if committed:
            reads = [{"Get": {"TableName": self._table, "Key": key}}]
            answer = await transact(self._client, "transact_get_items", TransactItems=reads)
            item = answer["Responses"][0].get("Item")
        else:
            item = await self._items.get(key)
        return job_codec.state_of(item, name) if item else None

    async def read_states(self, names: Sequence[JobName]) -> Mapping[JobName, JobState]:
        """See `JobStore`."""
        keys = [job_codec.state_key(name) for name in dict.fromkeys(names)]
        items = await read_all(self._client, self._table, keys)
        return {state.name: state for state in readable(_state_in, items)}

    async def read_definition(self, name: JobName, version: int) -> Job | None:
        """See `JobStore`."""
        item = await self._definitions.get(job_codec.item_key(name, job_codec.definition_item(version)))
        return job_codec.definition_of(item, name) if item else None

    async def read_versions(self, name: JobName, *, below: int | None, versions_max: int) -> Sequence[Job]:
        """See `JobStore`."""
        last = job_codec.definition_item(below - 1) if below is not None else job_codec.LAST_DEFINITION
        first = job_codec.definition_item(1)
        if last < first:
            return ()
        more: dict[str, Any] = {}
        items: list[Item] = []
        while len(items) < versions_max:
            # One answer has no more than 1 MB.
            answer = await self._downwards(name, first, last, items_max=versions_max - len(items), **more)
            items += answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                break
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        return readable(lambda item: job_codec.definition_of(item, name), items)

    async def change(self, change: JobTransaction) -> None:
        """See `JobStore`."""
        for calendar in change.references_put:
            note = job_codec.calendar_note_key(calendar, change.name)
            await retry_on_conflict(self._client, "put_item", TableName=self._table, Item=note)
        transaction = Transaction(
            key=change.name,
            actions=change_actions(self._settings, change),
            token=change_token(change),
            is_ours=lambda refused: _is_put(refused.items[_STATE], change.state),
        )
        try:
            await self._changes.commit(transaction)
        except Refused as refused:
            if not refused.failed[_STATE]:
                raise
            item = refused.items[_STATE]
            raise StaleRevision(job_codec.state_of(item, change.name) if item else None) from refused

    async def forget(self, state: JobState) -> None:
        """See `JobStore`. Its last definition goes with the state, in one transaction: a job that another node has restored
        at this moment, by a clock that is behind, keeps the one that it needs. Not all of them in it: they may have 256 KiB
        each, and a transaction 4 MB."""
        there = await self.read_state(state.name)
        if there is not None and there.rev != state.rev:
            raise ConditionFailed
        await self.prune_versions(state, below=state.version)
        delete_state = {
            "TableName": self._table,
            "Key": job_codec.state_key(state.name),
            "ConditionExpression": "#rev = :rev OR attribute_not_exists(jobKey)",
            "ExpressionAttributeNames": {"#rev": "rev"},
            "ExpressionAttributeValues": {":rev": number(state.rev)},
        }
        last = job_codec.item_key(state.name, job_codec.definition_item(state.version))
        await transact(
            self._client,
            "transact_write_items",
            TransactItems=[
                {"Delete": delete_state},
                {"Delete": {"TableName": self._table, "Key": last}},
                *(_no_note(self._table, calendar, state.name) for calendar, _ in state.calendars),
            ],
            ClientRequestToken=token_of("forget", state.name, state.rev),
        )

    async def prune_versions(self, state: JobState, *, below: int) -> None:
        """See `JobStore`. One by one, since a batch has no conditions; few are due at a time."""
        if below <= 1:
            return
        first, last = job_codec.definition_item(1), job_codec.definition_item(below - 1)
        keys = await self._all(state.name, first, last, ProjectionExpression="#key, #item")

        async def delete(key: Item) -> None:
            try:
                await retry_on_conflict(
                    self._client,
                    "delete_item",
                    TableName=self._table,
                    Key=key,
                    ConditionExpression="#created <= :created",
                    ExpressionAttributeNames={"#created": CREATED_AT},
                    ExpressionAttributeValues={":created": number(state.created_at_ms)},
                )
            except Refused:
                # Gone already, or of a job that was made anew since.
                return

        await gather_bounded(delete, keys, at_once=CALLS_AT_ONCE)

    # --- runs

    async def put_run_deliveries(self, ends: Sequence[RunDelivery], *, keep_existing: bool) -> None:
        """See `JobStore`."""
        items = [job_codec.entry(end) for end in ends]
        named = {codec.primary_key(codec.JOB_KEY, item): item for item in items}
        if keep_existing:
            failures = await self._first_run_ends.write(named)
        else:
            failures = await self._run_ends.write({key: {"PutRequest": {"Item": item}} for key, item in named.items()})
        if failures:
            # A refusal for good says more than one that may be gone at the next try.
            raise min(failures.values(), key=lambda error: isinstance(error, StoreThrottled))

    async def read_run_delivery(self, name: JobName, position: Position) -> RunDelivery | None:
        """See `JobStore`."""
        item = await self._items.get(job_codec.item_key(name, job_codec.log_item(position)))
        found = job_codec.entry_of(item, name) if item else None
        return found if isinstance(found, RunDelivery) else None

    async def put_completion(self, completion: RunCompletion, *, command: NoteChange | None = None) -> None:
        """See `JobStore`."""
        name = completion.name
        put = _put_first(self._table, job_codec.entry(completion))
        put["Put"]["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"

        def is_ours(refused: Refused) -> bool:
            item = refused.items[0]
            try:
                return item is not None and job_codec.completion_of(item, name) == completion
            except Unreadable:
                return False

        if command is not None:
            note = transactions.note_update_at(self._table, job_codec.note_key(name), command)
            token = token_of("completion", completion, command)
            await self._changes.commit(
                Transaction(key=name, actions=[put, {"Update": note}], token=token, is_ours=is_ours)
            )
            return
        try:
            await retry_on_conflict(self._client, "put_item", **put["Put"])
        except Refused as refused:
            if not is_ours(refused):
                raise

    async def read_completion(self, name: JobName, position: Position) -> RunCompletion | None:
        """See `JobStore`."""
        item = await self._items.get(job_codec.item_key(name, job_codec.completion_item(position)))
        return job_codec.completion_of(item, name) if item else None

    async def read_log(self, name: JobName, *, first: Position, last: Position, entries_max: int) -> LogPage:
        """See `JobStore`."""
        if first > last:
            return LogPage(entries=(), completions={}, next_from=None)
        answer = await self._downwards(name, job_codec.log_item(first), job_codec.log_item(last), items_max=entries_max)
        more = answer.get("LastEvaluatedKey")
        entries = readable(lambda item: job_codec.entry_of(item, name), answer["Items"])
        runs = {each.position for each in entries if isinstance(each, RunDelivery)}
        return LogPage(
            entries=tuple(entries),
            completions=await self._completions(name, runs) if runs else {},
            next_from=Position(job_codec.log_position(more) - 1) if more else None,
        )

    async def read_request(self, name: JobName, request_id: str) -> RunRequest | None:
        """See `JobStore`."""
        item = await self._items.get(job_codec.request_key(name, request_id))
        return job_codec.request_of(item, name) if item else None

    # --- commands

    async def read_command_note(self, name: JobName) -> CommandNote | None:
        """See `JobStore`."""
        item = await self._items.get(job_codec.note_key(name))
        return codec.note_of(item) if item else None

    async def note_command(self, name: JobName, note: NoteChange) -> None:
        """See `JobStore`."""
        update = transactions.note_update_at(self._table, job_codec.note_key(name), note)
        try:
            await retry_on_conflict(self._client, "update_item", **update)
        except Refused as refused:
            if not transactions.is_note(refused.items[0], note):
                raise

    # --- many jobs

    async def list_jobs(self, client_id: ClientId, *, after: JobId | None, jobs_max: int) -> NamePage:
        """See `JobStore`."""
        more = {"ExclusiveStartKey": job_codec.index_key(JobName(client_id, after))} if after is not None else {}
        return _names(await self._of_client(client_id, Limit=jobs_max, **more))

    async def count_jobs(self, client_id: ClientId, *, at_most: int) -> int:
        """See `JobStore`."""
        found = 0
        more: dict[str, Any] = {}
        while found < at_most:
            answer = await self._of_client(client_id, Limit=at_most - found, Select="COUNT", **more)
            found += answer["Count"]
            if not answer.get("LastEvaluatedKey"):
                break
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        return min(found, at_most)

    async def scan_jobs(self, segment: int, segments: int, *, after: JobName | None, jobs_max: int) -> NamePage:
        """See `JobStore`."""
        more: dict[str, Any] = {"ExclusiveStartKey": job_codec.index_key(after)} if after is not None else {}
        return _names(
            await self._client.call(
                "scan",
                TableName=self._table,
                IndexName=INDEX,
                Segment=segment,
                TotalSegments=segments,
                Limit=jobs_max,
                **more,
            )
        )

    # --- parts

    async def _of_client(self, client_id: ClientId, **more: Any) -> dict[str, Any]:
        return await self._client.call(
            "query",
            TableName=self._table,
            IndexName=INDEX,
            KeyConditionExpression="#listed = :client",
            ExpressionAttributeNames={"#listed": LISTED_UNDER},
            ExpressionAttributeValues={":client": {"S": client_id}},
            **more,
        )

    async def _query(self, name: JobName, first: str, last: str, **more: Any) -> dict[str, Any]:
        return await self._client.call(
            "query",
            TableName=self._table,
            KeyConditionExpression="#key = :key AND #item BETWEEN :first AND :last",
            ExpressionAttributeNames={"#key": "jobKey", "#item": "item"},
            ExpressionAttributeValues={":key": {"S": str(name)}, ":first": {"S": first}, ":last": {"S": last}},
            **more,
        )

    async def _downwards(self, name: JobName, first: str, last: str, *, items_max: int, **more: Any) -> dict[str, Any]:
        """Reads items of a job, the highest first."""
        return await self._query(
            name, first, last, ScanIndexForward=False, Limit=items_max, ConsistentRead=True, **more
        )

    async def _completions(self, name: JobName, runs: Set[Position]) -> Mapping[Position, RunCompletion]:
        items = await self._all(name, job_codec.completion_item(min(runs)), job_codec.completion_item(max(runs)))
        found = readable(lambda item: job_codec.completion_of(item, name), items)
        return {each.position: each for each in found if each.position in runs}

    async def _all(self, name: JobName, first: str, last: str, **parameters: Any) -> list[Item]:
        """All items of a job between two, both included, the lowest first."""
        items: list[Item] = []
        more: dict[str, Any] = {}
        while True:
            answer = await self._query(name, first, last, ConsistentRead=True, **parameters, **more)
            items += answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return items
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


# --- changes


def change_actions(settings: DynamoSettings, change: JobTransaction) -> list[Item]:
    """The actions of a change; the state's is the first."""
    table = settings.jobs_table
    state: Item = {
        "TableName": table,
        "Item": job_codec.state_item(change.state),
        "ConditionExpression": "attribute_not_exists(jobKey)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if change.before_rev is not None:
        state |= {
            # Implies that the state exists.
            "ConditionExpression": "#rev = :rev",
            "ExpressionAttributeNames": {"#rev": "rev"},
            "ExpressionAttributeValues": {":rev": number(change.before_rev)},
        }
    actions: list[Item] = [{"Put": state}]
    if change.definition is not None:
        # Over one of the same version, too: a job that was made anew after its state had been lost begins with 1 again.
        actions.append(_put(table, job_codec.definition(change.definition)))
    actions += [transactions.delete_held(settings, taken.name, taken.hold) for taken in change.taken]
    actions += [transactions.put_row(settings, row) for row in change.rows]
    actions += [
        _put_first(table, job_codec.entry(entry))
        if isinstance(entry, RunCompletion)
        else _put(table, job_codec.entry(entry))
        for entry in change.entries
    ]
    if change.absent is not None:
        actions.append(transactions.no_row(settings, change.absent))
    if change.request is not None:
        actions.append(_put_first(table, job_codec.request(change.request)))
    if change.command is not None:
        update = transactions.note_update_at(table, job_codec.note_key(change.name), change.command)
        actions.append({"Update": update})
    client_id = change.state.client_id
    actions += [_same_calendar(table, CalendarName(client_id, name), digest) for name, digest in change.calendars]
    actions += [_no_note(table, name, change.name) for name in change.references_deleted]
    return actions


def change_token(change: JobTransaction) -> str:
    """The token of a change. A revision is used once, but two attempts from one revision may differ in any part."""
    rows = [(row.shard, row.position) for row in change.rows]
    other = (change.taken, change.absent, change.entries, change.request, change.command, change.calendars)
    return token_of("job", change.before_rev, change.state, change.definition, rows, *other)


def _put(table: str, item: Item) -> Item:
    return {"Put": {"TableName": table, "Item": item}}


def _same_calendar(table: str, key: CalendarName, digest: str) -> Item:
    """The check that a calendar still has this content."""
    return {
        "ConditionCheck": {
            "TableName": table,
            "Key": job_codec.calendar_key(key),
            "ConditionExpression": "#digest = :digest",
            "ExpressionAttributeNames": {"#digest": job_codec.DIGEST},
            "ExpressionAttributeValues": {":digest": {"S": digest}},
        }
    }


def _no_note(table: str, calendar: str, job: JobName) -> Item:
    return {"Delete": {"TableName": table, "Key": job_codec.calendar_note_key(calendar, job)}}


def _put_first(table: str, item: Item) -> Item:
    put = {"TableName": table, "Item": item, "ConditionExpression": "attribute_not_exists(jobKey)"}
    return {"Put": put}


def _is_put(item: Item | None, state: JobState) -> bool:
    """True if this state, which came back with a failure, is the one that we wanted to put, in every field."""
    if item is None:
        return False
    try:
        return job_codec.state_of(item, state.name) == state
    except Unreadable:
        return False


# --- parts


def _state_in(item: Item) -> JobState:
    return job_codec.state_of(item, job_codec.name_of(item))


def _names(answer: dict[str, Any]) -> NamePage:
    last = answer.get("LastEvaluatedKey")
    return NamePage(
        names=tuple(readable(job_codec.name_of, answer["Items"])),
        next_after=job_codec.name_of(last) if last else None,
    )
