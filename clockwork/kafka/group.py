"""Requests to the coordinator of the ownership group that the consumer does not make: a heartbeat on demand, the processes
of the members, and the removal of a static member.

They go over connections of their own: a broker answers the requests of one connection strictly one after the other, and the
consumer's may be waiting there for all members to join again.

The coordinator is looked up for each request. They are few, and one that was deposed answers from its old state for as long
as it does not know of it; even then a heartbeat that it confirms is only permission to try (docs/design.md, 5: T0).
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.client import CoordinationType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

from clockwork.concurrency import Backoff
from clockwork.domain.ownership import ProcessId
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, KafkaWire, LastAnswer, Wire

REMOVE_S_MAX: Final = 15.0
"""Longest time for the removal of a static member, while the group may be without a coordinator."""
BACKOFF: Final = BackoffPolicy(initial_ms=20, max_ms=500)
"""Between attempts, while the group is without a coordinator."""
_CLIENT_ID: Final = re.compile(r"clockwork-ownership-([0-9a-f]{16})")
_USER_DATA: Final = re.compile(rb"process=([0-9a-f]{16})\Z")
"""At the end of a member's metadata; no topic's name has an equals sign."""
_WITHDRAWN: Final = b"withdrawn "
"""The begin of the data of a member that wants no shards any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMembership:
    """A member of the group in one generation."""

    generation: int
    member_id: str


# --- the process of a member


def member_role(process: ProcessId) -> str:
    """The role of the connections of a process's group member: its client id is that behind `clockwork-`."""
    return f"ownership-{process}"


def assignor_of(process: ProcessId, withdrawn: Callable[[], bool]) -> type[RangePartitionAssignor]:
    """The range assignor, for a member that names its process in the data that go with its subscription, and says there
    whether it has withdrawn: then others get the shards, as long as there are others.

    The client id names the process as well, and is enough for most. But a static member that comes back within its session
    keeps the client id of its first join (Kafka 4.1), so its dead process would be taken for a member, and the living one
    for none. The data of the subscription are those of the last join. Where the group's leader is a foreign or older
    client, a member that has withdrawn gets shards all the same, and hands them over as it leaves.
    """

    class OwnershipAssignor(RangePartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            said = (_WITHDRAWN if withdrawn() else b"") + f"process={process}".encode()
            return ConsumerProtocolMemberMetadata(cls.version, list(topics), said)

        @classmethod
        def assign(
            cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            takers = {name: each for name, each in members.items() if not each.user_data.startswith(_WITHDRAWN)}
            given = super().assign(cluster, takers or members)
            nothing = ConsumerProtocolMemberAssignment(cls.version, [], b"")
            return {name: given.get(name, nothing) for name in members}

    return OwnershipAssignor


def process_of_member(client_id: str, metadata: bytes) -> ProcessId | None:
    """The process of a member as the coordinator describes it; None for a foreign member. While the group is between two
    generations it shows no metadata, and the client id stands in."""
    if said := _USER_DATA.search(metadata):
        return ProcessId(said[1].decode())
    named = _CLIENT_ID.fullmatch(client_id)
    return None if named is None else ProcessId(named[1])


# --- requests that aiokafka lacks: its versions know no static members


class _HeartbeatResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _Heartbeat(RequestStruct):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class HeartbeatRequest(Request[_Heartbeat]):  # type: ignore[misc]  # aiokafka has no types
    """The heartbeat of a member, static or not."""

    API_KEY = 12

    def __init__(self, group: str, membership: GroupMembership, instance_id: str | None) -> None:
        self._group = group
        self._membership = membership
        self._instance_id = instance_id

    def build(self, request_struct_class: Any) -> Any:
        member = self._membership
        return request_struct_class(self._group, member.generation, member.member_id, self._instance_id)


class _LeaveGroupResponse(Response):  # type: ignore[misc]
    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(
                ("member_id", String("utf-8")),
                ("group_instance_id", String("utf-8")),
                ("error_code", Int16),
            ),
        ),
    )


class _LeaveGroup(RequestStruct):  # type: ignore[misc]
    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = _LeaveGroupResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("members", Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")))),
    )


class LeaveGroupRequest(Request[_LeaveGroup]):  # type: ignore[misc]  # aiokafka has no types
    """The request that removes one static member."""

    API_KEY = 13

    def __init__(self, group: str, instance_id: str) -> None:
        self._group = group
        self._instance_id = instance_id

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._group, [("", self._instance_id)])


# --- the coordinator


class GroupCoordinator:
    """The coordinator of the ownership group, whichever broker it is."""

    def __init__(self, kafka: KafkaContext, wire: Wire) -> None:
        self._group = kafka.settings.consumer_group
        self._instance_id = kafka.settings.instance_id
        self._answer_s_max = kafka.timeouts.lookup_ms / 1_000
        self._wire = wire

    async def close(self) -> None:
        await self._wire.close()

    async def is_current(self, membership: GroupMembership) -> bool:
        """Sends a heartbeat; False if the answer says that this member, or its generation, is over.

        Raises: BrokerUnavailable.
        """
        request = HeartbeatRequest(self._group, membership, self._instance_id)
        answer = await self._ask(request, lambda answer: answer.error_code, within_s=self._answer_s_max)
        code = int(answer.error_code)
        if code not in (codes.NONE, *codes.MEMBERSHIP_OVER):
            raise BrokerUnavailable(f"heartbeat of the group {self._group}: error code {code}")
        return code == codes.NONE

    async def processes(self) -> frozenset[ProcessId]:
        """The processes of the members. Raises: BrokerUnavailable."""
        request = DescribeGroupsRequest([self._group])
        answer = await self._ask(request, lambda answer: answer.groups[0][0], within_s=self._answer_s_max)
        [(code, _group, _state, _type, _protocol, members, *_)] = answer.groups
        if code != codes.NONE:
            raise BrokerUnavailable(f"description of the group {self._group}: error code {code}")
        processes = (process_of_member(client_id, metadata) for _id, client_id, _host, metadata, *_ in members)
        return frozenset(process for process in processes if process is not None)

    async def remove(self, instance_id: str) -> bool:
        """Removes the static member of this name; False: there is none. Raises: BrokerUnavailable."""
        request = LeaveGroupRequest(self._group, instance_id)
        code = _code_of_removal(await self._ask(request, _code_of_removal, within_s=REMOVE_S_MAX))
        if code not in (codes.NONE, codes.UNKNOWN_MEMBER):
            raise BrokerUnavailable(f"{instance_id} could not leave: error code {code}")
        return code == codes.NONE

    async def _ask(self, request: Any, code_of: Callable[[Any], int], *, within_s: float) -> Any:
        """The coordinator's answer, once there is one. Raises: BrokerUnavailable."""
        backoff = Backoff(RNG, BACKOFF)
        lookup = FindCoordinatorRequest(self._group, CoordinationType.GROUP)
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = await self._wire.request(lookup)
                    if found.error_code not in (codes.NONE, *codes.COORDINATOR_AWAY):
                        raise BrokerUnavailable(f"no coordinator of {self._group}: error code {found.error_code}")
                    if found.error_code == codes.NONE:
                        answer = await self._wire.request(request, node_id=found.coordinator_id, coordinator=True)
                        if code_of(answer) not in codes.COORDINATOR_AWAY:
                            return answer
                    await backoff.wait()
        except (TimeoutError, BrokerUnavailable) as error:
            # The brokers that these connections know may all have moved.
            await self._wire.reset()
            raise BrokerUnavailable(f"the group {self._group} has no coordinator that answers: {error!r}") from error


def _code_of_removal(answer: Any) -> int:
    given = [answer.error_code, *(code for _, _, code in answer.members)]
    return int(next((code for code in given if code != codes.NONE), codes.NONE))


async def leave_group(kafka: KafkaContext, instance_id: str) -> bool:
    """Removes the static member of this name; its shards are assigned to others at once. False: there is none.

    Raises: BrokerUnavailable.
    """
    coordinator = GroupCoordinator(kafka, KafkaWire(kafka, LastAnswer(), role="leave"))
    try:
        return await coordinator.remove(instance_id)
    finally:
        await coordinator.close()
