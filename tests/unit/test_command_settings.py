"""The rights of commands are said before the first one is taken."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from clockwork.access.gate import build_access
from clockwork.access.keys import KeyRing, hash_of, new_key
from clockwork.domain.rights import ANYONE
from clockwork.errors import CannotStart
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import AccessSettings
from clockwork.settings.sources import load_settings
from tests.support.clocks import ManualClock

KEYS = {"CLOCKWORK_AUTH": "keys", "CLOCKWORK_AUTH_KEYS_FILE": "/keys.toml", "CLOCKWORK_COMMANDS": "on"}


def entry(name: str, topics: str = '["*"]', expires: str = "") -> str:
    key, key_id = new_key()
    text = f"""
        [[keys]]
        id = "{key_id}"
        name = "{name}"
        hash = "{hash_of(key)}"
        clients = ["*"]
        topics = {topics}
        rights = ["create"]
        {expires}
    """
    assert tomllib.loads(text)
    return text


def access_of(path: Path, *entries: str, principal: str = "producers", auth: str = "keys") -> AccessSettings:
    path.write_text("".join(entries), encoding="utf-8")
    settings = AccessSettings(commands="on", commands_principal=principal, keys_file=str(path))
    return replace(settings, auth="keys" if auth == "keys" else "none")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (KEYS, "CLOCKWORK_COMMANDS_PRINCIPAL: is needed with CLOCKWORK_COMMANDS=on"),
        ({"CLOCKWORK_COMMANDS_PRINCIPAL": "producers"}, "CLOCKWORK_COMMANDS_PRINCIPAL: a name has no effect"),
        ({"CLOCKWORK_COMMANDS": "perhaps"}, "CLOCKWORK_COMMANDS: "),
    ],
)
def test_settings_that_leave_open_whose_rights_commands_have_are_refused(
    environment: dict[str, str], says: str
) -> None:
    with pytest.raises(CannotStart, match=says):
        load_settings(environment)


def test_commands_are_off_unless_asked_for_and_then_have_a_topic_and_a_group() -> None:
    assert not load_settings({}).kafka.commands
    chosen = load_settings({"CLOCKWORK_COMMANDS": "on", "KAFKA_CONSUMER_GROUP": "g"}).kafka
    assert (chosen.commands, chosen.commands_topic, chosen.commands_group) == (True, "clockwork-commands", "g-commands")


def test_commands_have_the_rights_of_the_named_entry_as_long_as_it_counts(tmp_path: Path) -> None:
    clock = ManualClock()
    expires = "expires = 2024-01-01T00:00:00Z"
    settings = access_of(tmp_path / "keys.toml", entry("producers", '["orders"]', expires), entry("other"))
    access = build_access(settings, clock, NoTelemetry(), accepts=True)
    principal = access.principal_of_commands()
    assert principal is not None
    assert principal.topics.cover("orders")
    assert not principal.topics.cover("bills")
    clock.set_ms(1_704_067_200_000)
    assert access.principal_of_commands() is None


def test_several_entries_of_one_name_are_one_principal_only_if_they_may_do_the_same(tmp_path: Path) -> None:
    # While a key is being changed for another, both are there.
    same = access_of(tmp_path / "same.toml", entry("producers"), entry("producers"))
    assert build_access(same, ManualClock(), NoTelemetry(), accepts=True).principal_of_commands() is not None
    differ = access_of(tmp_path / "differ.toml", entry("producers"), entry("producers", '["orders"]'))
    with pytest.raises(CannotStart, match="CLOCKWORK_COMMANDS_PRINCIPAL"):
        build_access(differ, ManualClock(), NoTelemetry(), accepts=True)
    assert KeyRing(tmp_path / "differ.toml", ManualClock(), NoTelemetry()).principal_named("nobody") is None


def test_with_a_star_or_without_keys_commands_may_do_everything(tmp_path: Path) -> None:
    star = access_of(tmp_path / "keys.toml", entry("producers"), principal="*")
    assert build_access(star, ManualClock(), NoTelemetry(), accepts=True).principal_of_commands() is ANYONE
    none = AccessSettings(commands="on")
    assert build_access(none, ManualClock(), NoTelemetry(), accepts=True).principal_of_commands() is ANYONE


def test_a_worker_asks_for_nobody_s_rights(tmp_path: Path) -> None:
    settings = access_of(tmp_path / "keys.toml", entry("other"))
    assert build_access(settings, ManualClock(), NoTelemetry(), accepts=False).principal_of_commands() is not None
