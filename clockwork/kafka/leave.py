"""Leaving the consumer group for good, in the name of a static member.

A static member that stops keeps its place until its session ends, so that a restart moves no shard. When a node will not
come back, that wait is lateness for nothing. Anybody may remove a member by its instance id (KIP-345): LeaveGroup from
version 3 on, which aiokafka does not have.
"""

import asyncio
from typing import Any, Final

from aiokafka.client import CoordinationType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

from clockwork.errors import BrokerUnavailable
from clockwork.kafka.client import COORDINATOR_CODES, NONE, KafkaSettings, KafkaWire, Pulse

LEAVE_SECONDS_MAX: Final = 15.0
ASK_AGAIN_S: Final = 0.3
UNKNOWN_MEMBER: Final = 25
"""There is no member of that name, or not any more."""


class _LeaveGroupResponse(Response):  # type: ignore[misc]  # aiokafka has no types
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
    """Removes one static member."""

    API_KEY = 13

    def __init__(self, group: str, instance_id: str) -> None:
        self._group = group
        self._instance_id = instance_id

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._group, [("", self._instance_id)])


async def leave_group(settings: KafkaSettings, instance_id: str) -> bool:
    """Removes the static member of this name; its shards are assigned to others at once. False: there is none.

    Raises: BrokerUnavailable.
    """
    wire = KafkaWire(settings, Pulse(), role="leave")
    try:
        async with asyncio.timeout(LEAVE_SECONDS_MAX):
            while True:
                code = await _leave_once(wire, settings.consumer_group, instance_id)
                if code in (NONE, UNKNOWN_MEMBER):
                    return code == NONE
                if code not in COORDINATOR_CODES:
                    raise BrokerUnavailable(f"{instance_id} could not leave: error code {code}")
                await asyncio.sleep(ASK_AGAIN_S)
    except TimeoutError as error:
        raise BrokerUnavailable(f"the group {settings.consumer_group} has no coordinator") from error
    finally:
        await wire.close()


async def _leave_once(wire: KafkaWire, group: str, instance_id: str) -> int:
    found = await wire.request(FindCoordinatorRequest(group, CoordinationType.GROUP))
    if found.error_code != NONE:
        return int(found.error_code)
    answer = await wire.request(LeaveGroupRequest(group, instance_id), node_id=found.coordinator_id, coordinator=True)
    codes = [answer.error_code, *(code for _, _, code in answer.members)]
    return int(next((code for code in codes if code != NONE), NONE))
