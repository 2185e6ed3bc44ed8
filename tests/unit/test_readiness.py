"""`/readyz` says for each thing that a node depends on whether it is there, and why not."""

from typing import Any

import pytest

from clockwork.clock import HELD_AHEAD_MS_LIVE, HELD_AHEAD_MS_MAX, HeldTimeWatch
from clockwork.node.readiness import NodeReadiness, Role


class Parts:
    """The parts that readiness looks at; all is well until a test says otherwise."""

    store_error: str | None = None
    skew_ms = 3
    trusts = True
    is_connected = True
    kafka_trouble: str | None = None
    group_trouble: str | None = None
    ahead_ms = 0

    def trusted(self) -> bool:
        return self.trusts

    def connected(self) -> bool:
        return self.is_connected

    def trouble(self) -> str | None:
        return self.kafka_trouble


def readiness(role: Role, **wrong: Any) -> NodeReadiness:
    parts: Any = Parts()
    for name, value in wrong.items():
        setattr(parts, name, value)
    return NodeReadiness(
        role=role,
        guard=parts,
        held_time=HeldTimeWatch(lambda: parts.ahead_ms),
        watch=parts,
        publisher=parts,
        shards_owned=lambda: 4,
        group_trouble=lambda: parts.group_trouble,
        preparing=None,
    )


@pytest.mark.parametrize("role", Role)
def test_a_node_for_which_all_is_there_gives_no_reasons(role: Role) -> None:
    assert readiness(role).reasons() == []


@pytest.mark.parametrize(
    ("wrong", "reason", "detail", "of_roles"),
    [
        (
            {"store_error": "no answer: refused"},
            "the store: no answer: refused",
            {"store": "down", "storeTrouble": "no answer: refused"},
            set(Role),
        ),
        ({"trusts": False, "skew_ms": 9_000}, "clock:", {"clock": "not trusted", "clockSkewMs": 9_000}, set(Role)),
        (
            {"ahead_ms": HELD_AHEAD_MS_MAX + 1},
            "clock: set back by 2001 ms",
            {"clock": "trusted", "clockSetBackMs": HELD_AHEAD_MS_MAX + 1},
            set(Role),
        ),
        (
            {"is_connected": False, "kafka_trouble": "no broker"},
            "Kafka does not answer: no broker",
            {"kafka": "down", "kafkaTrouble": "no broker"},
            {Role.WORKER},
        ),
        ({"group_trouble": "not joined yet"}, "not in the consumer group: not joined yet", {}, {Role.WORKER}),
    ],
)
@pytest.mark.parametrize("role", Role)
def test_what_is_missing_is_named_and_is_a_reason_where_the_role_needs_it(
    role: Role, wrong: dict[str, Any], reason: str, detail: dict[str, Any], of_roles: set[Role]
) -> None:
    found = readiness(role, **wrong)
    assert [text.startswith(reason) for text in found.reasons()] == ([True] if role in of_roles else [])
    assert found.details().items() >= detail.items()


@pytest.mark.parametrize(("role", "shown"), [(Role.ALL, "out"), (Role.WORKER, "out"), (Role.API, "not needed")])
def test_the_group_is_named_for_those_who_belong_in_it(role: Role, shown: str) -> None:
    details = readiness(role, group_trouble="GroupAuthorizationFailed").details()
    assert details["group"] == shown
    assert details["groupTrouble"] == (None if shown == "not needed" else "GroupAuthorizationFailed")
    assert readiness(role).details()["group"] == ("not needed" if role is Role.API else "member")


@pytest.mark.parametrize("role", Role)
def test_only_a_clock_that_was_set_back_far_asks_for_a_restart(role: Role) -> None:
    everything_else = {"store_error": "no answer", "trusts": False, "is_connected": False, "group_trouble": "out"}
    assert readiness(role, **everything_else, ahead_ms=HELD_AHEAD_MS_LIVE).needs_restart() is None
    why = readiness(role, ahead_ms=HELD_AHEAD_MS_LIVE + 1).needs_restart()
    assert why is not None
    assert "set back by 300001 ms" in why
