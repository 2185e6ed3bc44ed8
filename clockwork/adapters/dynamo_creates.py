"""Group commit of creates: those that come while others are under way share one transaction (design.md, 4).

A transaction costs CPU and time of its own, whatever is in it: DynamoDB Local stores twice as many schedules by fifties
as one by one. One create alone waits for nobody; only when all places are taken do the next ones gather, and the longer
they wait, the more they are.

A transaction fails as a whole. Those whose key is taken are known by what came back with the failure; the rest goes again
together, and if that fails as well, each for itself. What befell a member is told to its own caller, as if it had been
alone.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from clockwork.adapters import dynamo_transactions as transactions
from clockwork.adapters.dynamo_client import DynamoClient
from clockwork.adapters.dynamo_errors import Refused, Rejected
from clockwork.adapters.dynamo_fields import Item, size_bytes
from clockwork.domain.schedule import Pointer, Row
from clockwork.engine.together import together
from clockwork.errors import ClockworkError, ConditionFailed, StoreUnavailable, TransactionConflict

TRANSACTIONS_AT_ONCE: Final = 4
"""More creates than this at one moment gather. The fewer, the larger the groups, and the longer a create waits for a place.
Of 2, 4 and 8, DynamoDB Local with 256 clients stores most with 2 (4: 10 % more than 8); at 5 ms a transaction, 16 clients
get most from 8 (4: a quarter less, 2: a third less), and 256 clients most from 2 and 4."""
MEMBERS_MAX: Final = 50
"""DynamoDB takes 100 actions; a create has two."""
GROUP_BYTES_MAX: Final = 900 * 1024
"""DynamoDB takes 4 MB, but see `dynamo_batch.BYTES_PER_CALL`."""
ALONE_AT_ONCE: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Create:
    """One create: its actions, and what makes its transaction known again."""

    row: Row
    pointer: Pointer
    replaces_version: int | None
    actions: Sequence[Item]
    token: str
    size_bytes: int

    @property
    def key(self) -> tuple[str, str]:
        return self.pointer.client_id, self.pointer.schedule_key


@dataclass(slots=True, eq=False)
class _Group:
    """Creates that go together; the first of them carries it."""

    members: dict[tuple[str, str], Create] = field(default_factory=dict)
    size_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    verdicts: dict[tuple[str, str], ClockworkError | None] = field(default_factory=dict)
    """None: stored."""

    def takes(self, create: Create) -> bool:
        """No two of one key: DynamoDB refuses a transaction that names an item twice."""
        return (
            len(self.members) < MEMBERS_MAX
            and self.size_bytes + create.size_bytes <= GROUP_BYTES_MAX
            and create.key not in self.members
        )

    def add(self, create: Create) -> None:
        self.members[create.key] = create
        self.size_bytes += create.size_bytes


class GroupedCreates:
    """Stores schedules with their pointers."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._places = asyncio.Semaphore(TRANSACTIONS_AT_ONCE)
        self._open: _Group | None = None

    async def create(self, row: Row, pointer: Pointer, *, replaces_version: int | None) -> None:
        """As `ScheduleStore.create`."""
        actions = transactions.create_actions(self._client.settings, row, pointer, replaces_version)
        create = Create(
            row=row,
            pointer=pointer,
            replaces_version=replaces_version,
            actions=actions,
            token=transactions.create_token(row, pointer, replaces_version),
            size_bytes=size_bytes(actions),
        )
        verdicts = await self._grouped(create)
        while create.key not in verdicts:
            # Who carried the group was cancelled, maybe in the middle of it: the same create again settles it. In company
            # again: carriers give up when the store is slow, and a slow store must not be asked for each one alone.
            verdicts = await self._grouped(create)
        if (error := verdicts[create.key]) is not None:
            raise error

    async def _grouped(self, create: Create) -> dict[tuple[str, str], ClockworkError | None]:
        """Goes with the group that is open, or carries a new one; returns what became of it."""
        group = self._open
        if group is not None and group.takes(create):
            group.add(create)
            await group.over.wait()
        else:
            group = self._open = _Group()
            group.add(create)
            await self._carry(group)
        return group.verdicts

    async def _carry(self, group: _Group) -> None:
        try:
            async with self._places:
                self._close(group)
                left = await self._together(group, list(group.members.values()))
                if left and len(left) < len(group.members):
                    left = await self._together(group, left)
                await together(partial(self._one, group), left, at_once=ALONE_AT_ONCE)
        finally:
            self._close(group)
            group.over.set()

    def _close(self, group: _Group) -> None:
        if self._open is group:
            self._open = None

    async def _together(self, group: _Group, members: list[Create]) -> list[Create]:
        """Returns those that are to be tried again."""
        if len(members) == 1:
            return members
        try:
            await self._client.call(
                "transact_write_items",
                TransactItems=[action for create in members for action in create.actions],
                ClientRequestToken=transactions.token_of(*(create.token for create in members)),
            )
        except Refused as refused:
            for nth, create in enumerate(members):
                items = refused.items[nth * len(create.actions) : (nth + 1) * len(create.actions)]
                if items[transactions.CREATE_POINTER] is not None:
                    group.verdicts[create.key] = _verdict(create, Refused(items, str(refused)))
            return [create for create in members if create.key not in group.verdicts]
        except (TransactionConflict, Rejected):
            return members
        except StoreUnavailable as error:
            group.verdicts |= {create.key: error for create in members}
        else:
            group.verdicts |= {create.key: None for create in members}
        return []

    async def _one(self, group: _Group, create: Create) -> None:
        try:
            await self._alone(create)
        except (StoreUnavailable, ConditionFailed, TransactionConflict) as error:
            group.verdicts[create.key] = error
        else:
            group.verdicts[create.key] = None

    async def _alone(self, create: Create) -> None:
        try:
            await self._client.call(
                "transact_write_items", TransactItems=list(create.actions), ClientRequestToken=create.token
            )
        except Refused as refused:
            if (failure := _verdict(create, refused)) is not None:
                raise failure from refused


def _verdict(create: Create, refused: Refused) -> Refused | None:
    """None: stored. Pointer and row are put by one transaction: if the pointer stands at this position, both were, by us."""
    mine = transactions.points_at(refused.items[transactions.CREATE_POINTER], create.row.position)
    return None if mine else refused
