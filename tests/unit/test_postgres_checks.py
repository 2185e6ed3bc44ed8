"""The settings of a PostgreSQL server with which a node does not start, or starts and warns."""

import pytest

from clockwork.stores.postgres.client import CallLimits, session_settings
from clockwork.stores.postgres.schema import PER_SESSION, server_problems, server_warnings

SOUND: dict[str, object] = {
    "server_version_num": "150018",
    "server_version": "15.18",
    "standby": False,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
    "server_encoding": "UTF8",
    "autovacuum": "on",
    "transaction_read_only": "off",
    "replicas": 0,
    "snapshot_s": 0,
    **{name: session_settings(CallLimits())[name] for name in PER_SESSION},
}


def test_a_sound_server_is_neither_refused_nor_warned_of() -> None:
    for found in (
        SOUND,
        SOUND | {"replicas": 1, "synchronous_standby_names": "ANY 1 (b, c)"},
        SOUND | {"synchronous_commit": "local"},
        SOUND | {"synchronous_commit": "remote_apply"},
        SOUND | {"client_min_messages": "notice"},
    ):
        assert server_problems(found) == []
        assert server_warnings(found) == []


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"server_version_num": "140011", "server_version": "14.11"}, "14.11 is too old"),
        ({"standby": True, "transaction_read_only": "on"}, "target_session_attrs=read-write"),
        ({"fsync": "off"}, "fsync=off"),
        ({"synchronous_commit": "off"}, "synchronous_commit=off"),
        ({"synchronous_commit": "local", "synchronous_standby_names": "b", "replicas": 1}, "synchronous_commit=local"),
        ({"server_encoding": "SQL_ASCII"}, "SQL_ASCII"),
        ({"transaction_read_only": "on"}, "default_transaction_read_only"),
        ({"client_min_messages": "error"}, "ALTER ROLE … SET client_min_messages"),
    ],
)
def test_a_server_that_would_lose_or_refuse_what_it_accepted_is_refused(found: dict[str, object], text: str) -> None:
    (problem,) = server_problems(SOUND | found)

    assert text in problem


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"full_page_writes": "off"}, "full_page_writes=off"),
        ({"replicas": 2}, "no synchronous_standby_names"),
        ({"synchronous_standby_names": "b"}, "every write waits"),
        ({"autovacuum": "off"}, "autovacuum=off"),
        ({"snapshot_s": 601}, "601 s"),
        ({"jit": "on", "default_transaction_isolation": "serializable"}, "(default_transaction_isolation, jit)"),
    ],
)
def test_a_server_that_could_be_safer_or_faster_is_warned_of(found: dict[str, object], text: str) -> None:
    (warning,) = server_warnings(SOUND | found)

    assert text in warning
    assert server_problems(SOUND | found) == []
