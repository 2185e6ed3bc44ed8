"""Group commit (docs/design.md, 4): creates, cancels and changes that come while others are under way share one transaction.

A transaction costs CPU and time of its own, whatever is in it: DynamoDB Local stores twice as many schedules by fifties
as one by one (`stores.dynamodb.sharing`).

A transaction fails as a whole. Those whose own conditions failed are known by its cancellation reasons; the rest goes
again together, and if that fails as well, each for itself. What befell a member is told to its own caller, as if it had
been alone. To go again changes nothing for any of them: each carries its own conditions (a version, a hold of its own).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import ClockworkError, ConditionFailed, StoreUnavailable, TransactionConflict
from clockwork.stores.dynamodb import transactions
from clockwork.stores.dynamodb.attributes import Item, size_bytes
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.errors import Refused, Rejected
from clockwork.stores.dynamodb.sharing import SharedCalls

TRANSACTIONS_AT_ONCE: Final = 4
"""More requests than this at one moment gather. The fewer, the larger the groups, and the longer one waits for a place.
Of 2, 4 and 8, DynamoDB Local with 256 clients stores most with 2 (4: 10 % more than 8); at 5 ms a transaction, 16 clients
get most from 8 (4: a quarter less, 2: a third less), and 256 clients most from 2 and 4."""
ACTIONS_MAX: Final = 100
"""DynamoDB takes no more."""
GROUP_BYTES_MAX: Final = 900 * 1024
"""DynamoDB takes 4 MB, but see `stores.dynamodb.batching.BYTES_PER_CALL`."""
ALONE_AT_ONCE: Final = 8

Key = tuple[ClientId, ScheduleKey]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Member:
    """One request: its actions, and what makes its transaction known again."""

    key: Key
    """What it is about. It writes no item of any other key."""
    actions: Sequence[Item]
    token: str
    ours: Callable[[Refused], bool]
    """Whether what stood in the way was put there by an earlier copy of this very request."""
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_bytes", size_bytes(self.actions))


@dataclass(slots=True, eq=False)
class _Group:
    """Requests that go together."""

    members: dict[Key, Member] = field(default_factory=dict)
    actions: int = 0
    size_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    verdicts: dict[Key, ClockworkError | None] = field(default_factory=dict)
    """None: done."""

    def takes(self, member: Member) -> bool:
        """No two of one key: DynamoDB refuses a transaction that names an item twice."""
        return (
            self.actions + len(member.actions) <= ACTIONS_MAX
            and self.size_bytes + member.size_bytes <= GROUP_BYTES_MAX
            and member.key not in self.members
        )

    def add(self, member: Member) -> None:
        self.members[member.key] = member
        self.actions += len(member.actions)
        self.size_bytes += member.size_bytes


class GroupCommit:
    """Does transactions, each wholly or not at all."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._calls: SharedCalls[_Group, Member] = SharedCalls(_Group, self._carry, at_once=TRANSACTIONS_AT_ONCE)

    async def commit(self, member: Member) -> None:
        """Returns when it is done, by this copy of the request or an earlier one.

        Raises: Refused, TransactionConflict (nothing was written), StoreUnavailable.
        """
        verdicts = (await self._calls.go(member)).verdicts
        while member.key not in verdicts:
            # Who carried the group was cancelled, maybe in the middle of it: the same request again settles it. In company
            # again: carriers give up when the store is slow, and a slow store must not be asked for each one alone.
            verdicts = (await self._calls.go(member)).verdicts
        if (error := verdicts[member.key]) is not None:
            raise error

    async def _carry(self, group: _Group) -> None:
        left = await self._together(group, list(group.members.values()))
        if left and len(left) < len(group.members):
            left = await self._together(group, left)
        await gather_bounded(partial(self._one, group), left, at_once=ALONE_AT_ONCE)

    async def _together(self, group: _Group, members: list[Member]) -> list[Member]:
        """Returns those that are to be tried again."""
        if len(members) == 1:
            return members
        try:
            await self._client.call(
                "transact_write_items",
                TransactItems=[action for member in members for action in member.actions],
                ClientRequestToken=transactions.token_of(*(member.token for member in members)),
            )
        except Refused as refused:
            group.verdicts |= _verdicts(members, refused)
            return [member for member in members if member.key not in group.verdicts]
        except (TransactionConflict, Rejected):
            return members
        except StoreUnavailable as error:
            group.verdicts |= {member.key: error for member in members}
        else:
            group.verdicts |= {member.key: None for member in members}
        return []

    async def _one(self, group: _Group, member: Member) -> None:
        try:
            await self._alone(member)
        except (StoreUnavailable, ConditionFailed, TransactionConflict) as error:
            group.verdicts[member.key] = error
        else:
            group.verdicts[member.key] = None

    async def _alone(self, member: Member) -> None:
        try:
            await self._client.call(
                "transact_write_items", TransactItems=list(member.actions), ClientRequestToken=member.token
            )
        except Refused as refused:
            if not member.ours(refused):
                raise


def _verdicts(members: Sequence[Member], refused: Refused) -> dict[Key, ClockworkError | None]:
    """Of those whose own conditions failed."""
    found: dict[Key, ClockworkError | None] = {}
    first = 0
    for member in members:
        last = first + len(member.actions)
        if any(refused.failed[first:last]):
            own = Refused(refused.items[first:last], str(refused), failed=refused.failed[first:last])
            found[member.key] = None if member.ours(own) else own
        first = last
    return found
