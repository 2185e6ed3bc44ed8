"""Who may call, as the settings of a node say."""

import asyncio
from pathlib import Path

import pytest

from clockwork.__main__ import main
from clockwork.access.keys import KeyRing, hash_of, new_credential
from clockwork.access.oidc import OidcTokens
from clockwork.access.setup import open_access
from clockwork.clock import SystemClock
from clockwork.errors import StartRefused
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import AccessSettings


def test_a_node_that_lets_everybody_in_says_so_once_and_loudly(caplog: pytest.LogCaptureFixture) -> None:
    access = open_access(AccessSettings(), SystemClock(), NoTelemetry(), accepts=True)
    assert access.authenticator is None
    assert [(r.levelname, getattr(r, "event", "")) for r in caplog.records] == [("WARNING", "auth.none")]


def test_each_way_to_know_who_asks_has_its_own_part(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("", encoding="utf-8")
    with_keys = open_access(
        AccessSettings(auth="keys", keys_file=str(path)), SystemClock(), NoTelemetry(), accepts=True
    )
    assert isinstance(with_keys.authenticator, KeyRing)
    oidc = AccessSettings(auth="oidc", oidc_issuer="https://issuer.example", oidc_audience="clockwork")
    assert isinstance(open_access(oidc, SystemClock(), NoTelemetry(), accepts=True).authenticator, OidcTokens)


async def test_a_worker_needs_no_keys_and_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    chosen = AccessSettings(auth="keys", keys_file="/nowhere/keys.toml")
    access = open_access(chosen, SystemClock(), NoTelemetry(), accepts=False)
    await access.run()
    assert caplog.records == []
    with pytest.raises(StartRefused):
        open_access(chosen, SystemClock(), NoTelemetry(), accepts=True)


def test_the_program_makes_keys_without_any_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOCKWORK_SHARDS", "not read at all")
    assert main(["keys", "new", "--name", "shop", "--client", "shop"]) == 0
    assert 'rights = ["create", "cancel", "read"]' in capsys.readouterr().out


async def test_a_slow_hash_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    # Checked without a clock: a callback that is due at once runs before the hash is done.
    credential, key_id = new_credential()
    path = tmp_path / "keys.toml"
    entry = f'id = "{key_id}"\nname = "n"\nhash = "{hash_of(credential).text()}"\nclients = []\nrights = ["read"]\n'
    path.write_text(f"[[keys]]\n{entry}", encoding="utf-8")
    ring = KeyRing(path, SystemClock(), NoTelemetry())
    turns: list[str] = []
    async with asyncio.TaskGroup() as group:
        checking = group.create_task(ring.check(credential))
        checking.add_done_callback(lambda _: turns.append("checked"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turns.append("turned")
    assert turns == ["turned", "checked"]
