"""API keys: their file, their hashes, and changes of the file while the node runs."""

import asyncio
import hashlib
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from clockwork.__main__ import main
from clockwork.access import keys as keys_module
from clockwork.access import keys_command
from clockwork.access.keys import KeyEntry, KeyRing, hash_of, new_key, parse_keys
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right
from clockwork.errors import CannotStart, Unauthenticated
from clockwork.observability.metrics import PrometheusTelemetry
from tests.support.clocks import ManualClock
from tests.support.waiting import until
from tests.unit.api_edge import NOW_MS

EXAMPLE = Path(__file__).parents[2] / "config" / "keys.example.toml"
SCRYPT = f"scrypt$14$8$1${'A' * 22}==${'A' * 43}="


def an_entry(name: str = "shop", **changes: object) -> tuple[str, str]:
    """A new key, and its entry for the file."""
    key, key_id = new_key()
    given = {"clients": ["shop"], "topics": ["orders"], "rights": ["create"], **changes}
    written = KeyEntry.model_validate({"id": key_id, "name": name, "hash": hash_of(key), **given})
    return key, keys_command.entry(written)


class Ring:
    """A key ring on a file that a test writes."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        path.write_text(text, encoding="utf-8")
        self.clock = ManualClock(NOW_MS)
        self.telemetry = PrometheusTelemetry()
        self.ring = KeyRing(path, self.clock, self.telemetry)

    async def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        await self.ring.reload()

    async def accepts(self, key: str) -> bool:
        try:
            await self.ring.authenticate(key)
        except Unauthenticated:
            return False
        return True

    def is_current(self) -> bool:
        return "clockwork_auth_keys_current 1.0" in self.telemetry.exposition()[0].decode()


@pytest.fixture
def a_ring(tmp_path: Path) -> Callable[[str], Ring]:
    return lambda text: Ring(tmp_path / "keys.toml", text)


async def test_a_key_has_the_principal_of_its_entry(a_ring: Callable[[str], Ring]) -> None:
    (shop, shop_text), (_, other_text) = an_entry(), an_entry("other", rights=["read"])
    principal = await a_ring(shop_text + other_text).ring.authenticate(shop)
    assert (principal.name, principal.rights) == ("shop", frozenset({Right.CREATE}))


async def test_an_entry_holds_the_sha_256_of_the_whole_key(a_ring: Callable[[str], Ring]) -> None:
    key, text = an_entry()
    assert f'hash = "sha256${hashlib.sha256(key.encode()).hexdigest()}"' in text
    assert await a_ring(text).accepts(key)


async def test_a_wrong_secret_an_unknown_id_and_no_key_at_all_get_one_answer(a_ring: Callable[[str], Ring]) -> None:
    key, text = an_entry()
    ring = a_ring(text).ring
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for each in (wrong, new_key()[0], "cw_", "secret", key + "x", key.upper(), hash_of(key)):
        with pytest.raises(Unauthenticated) as refused:
            await ring.authenticate(each)
        assert str(refused.value) == "This key is not valid here."


@pytest.mark.parametrize("expires", ["2027-01-15T08:00:01Z", "2027-01-15T09:00:01+01:00"])
async def test_a_key_is_valid_until_it_expires(a_ring: Callable[[str], Ring], expires: str) -> None:
    key, text = an_entry()
    opened = a_ring(f"{text}expires = {expires}\n")
    opened.clock.set_ms(NOW_MS + 999)
    assert await opened.accepts(key)
    opened.clock.set_ms(NOW_MS + 1_000)
    assert not await opened.accepts(key)


@pytest.mark.parametrize(
    ("expires", "valid"), [("9999-12-31T23:59:59-23:00", True), ("0001-01-01T00:00:00+23:00", False)]
)
async def test_the_first_and_the_last_time_that_can_be_written_are_times(
    a_ring: Callable[[str], Ring], expires: str, valid: bool
) -> None:
    key, text = an_entry()
    assert await a_ring(f"{text}expires = {expires}\n").accepts(key) == valid


async def test_entries_that_are_added_changed_or_removed_count_with_the_next_reload(
    a_ring: Callable[[str], Ring],
) -> None:
    (old, old_text), (new, new_text) = an_entry(), an_entry()
    opened = a_ring(old_text)
    assert (await opened.accepts(old), await opened.accepts(new)) == (True, False)
    await opened.write(old_text + "\n" + new_text)
    assert (await opened.accepts(old), await opened.accepts(new)) == (True, True)
    await opened.write(old_text.replace('"create"', '"read"'))
    assert (await opened.ring.authenticate(old)).rights == {Right.READ}
    assert not await opened.accepts(new)
    await opened.write(old_text.replace(hash_of(old), hash_of("another")))
    assert not await opened.accepts(old)


async def test_a_byte_order_mark_at_the_beginning_is_ignored(a_ring: Callable[[str], Ring]) -> None:
    # As Excel and Notepad write it.
    (old, old_text), (new, new_text) = an_entry(), an_entry()
    opened = a_ring("\ufeff" + old_text)
    assert await opened.accepts(old)
    await opened.write("\ufeff" + new_text)
    assert await opened.accepts(new)
    with pytest.raises(ValueError, match="Invalid"):
        parse_keys(("\ufeff\ufeff" + old_text).encode())


@pytest.mark.parametrize("broken", ["[[keys]", "[[keys]]\nid = 1\n", "[[key]]\n", "\x00", None])
async def test_a_file_that_is_broken_or_gone_leaves_the_keys_and_is_logged_once_until_it_is_mended(
    a_ring: Callable[[str], Ring], broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = an_entry()
    opened = a_ring(text)
    for _ in range(3):
        if broken is None:
            opened.path.unlink(missing_ok=True)
            await opened.ring.reload()
        else:
            await opened.write(broken)
    assert await opened.accepts(key)
    assert not opened.is_current()
    assert [getattr(r, "event", "") for r in caplog.records if r.levelname == "ERROR"] == ["auth.keys_kept"]
    await opened.write(text)
    assert opened.is_current()


async def test_a_scrypt_hash_is_refused_with_the_command_that_makes_a_new_key(
    a_ring: Callable[[str], Ring], caplog: pytest.LogCaptureFixture
) -> None:
    key, text = an_entry()
    opened = a_ring(text)
    await opened.write(text + an_entry()[1].replace("sha256$", "scrypt$14$8$1$"))
    assert await opened.accepts(key)
    (kept,) = (record for record in caplog.records if record.levelname == "ERROR")
    with pytest.raises(CannotStart) as refused:
        a_ring(text.replace(hash_of(key), SCRYPT))
    for said in (str(vars(kept)["error"]), str(refused.value)):
        assert "hash: " in said
        assert "scrypt" in said
        assert "clockwork keys new" in said
        assert "$14$" not in said


async def test_a_running_ring_reloads_its_file(a_ring: Callable[[str], Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_S", 0.0)
    opened = a_ring("")
    key, text = an_entry()
    opened.path.write_text(text, encoding="utf-8")

    async def look() -> bool:
        return "clockwork_auth_keys 1.0" in opened.telemetry.exposition()[0].decode()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(opened.ring.run())
        await until(look, "the new key")
        running.cancel()
    assert await opened.accepts(key)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("rights = [", 'rights = ["all", '), "keys.0.rights.0: "),
        (('["shop"]', '["sh*p"]'), "keys.0.clients: "),
        (('["orders"]', '[""]'), "keys.0.topics: "),
        (("sha256$", "sha256$0"), "keys.0.hash: "),
        (("sha256$", "md5$"), "keys.0.hash: "),
        (("sha256$", ""), "keys.0.hash: "),
        (('name = "shop"', 'name = ""'), "keys.0.name: "),
        (("id = ", "idd = "), "keys.0.id: "),
        (('rights = ["create"]', "rights = []"), "keys.0.rights: "),
        (("rights", "expires = 2027-01-01T00:00:00\nrights"), "keys.0.expires: "),
    ],
)
def test_a_wrong_file_stops_the_start_with_the_name_of_the_entry_and_none_of_its_values(
    a_ring: Callable[[str], Ring], change: tuple[str, str], named: str
) -> None:
    _, text = an_entry()
    with pytest.raises(CannotStart) as refused:
        a_ring(text.replace(*change))
    assert "CLOCKWORK_AUTH_KEYS_FILE: " in str(refused.value)
    assert named in str(refused.value)
    kept = tomllib.loads(text)["keys"][0]["hash"].rsplit("$", 1)[1]
    assert kept not in str(refused.value)


def test_an_id_that_is_there_twice_stops_the_start(a_ring: Callable[[str], Ring]) -> None:
    _, text = an_entry()
    with pytest.raises(CannotStart, match=r"keys\.1\.id: is there twice"):
        a_ring(text + text)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"CLOCKWORK_AUTH_KEYS_FILE: .*No such file"):
        KeyRing(tmp_path / "none.toml", ManualClock(NOW_MS), PrometheusTelemetry())


def test_the_example_file_can_be_read() -> None:
    shop, support = parse_keys(EXAMPLE.read_bytes()).values()
    assert shop.principal.clients.cover("shop-7")
    assert support.principal.rights == {Right.READ, Right.CANCEL, Right.OPERATE}
    assert (shop.principal.redacted, support.principal.redacted) == (False, True)


async def test_the_command_shows_the_key_apart_from_its_entry_and_the_entry_fits_it(
    a_ring: Callable[[str], Ring], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "keys",
        "new",
        "--name",
        'the "shop"',
        "--client",
        "shop*",
        "--topic",
        "a",
        "--topic",
        "b",
        "--days",
        "30",
    ]
    before_ms = SystemClock().now_ms() // 1_000 * 1_000
    assert main([*arguments, "--right", "read", "--redacted"]) == 0
    after_ms = SystemClock().now_ms()
    shown = capsys.readouterr()
    key = next(line.strip() for line in shown.err.splitlines() if line.strip().startswith("cw_"))
    assert key.split("_", 2)[2] not in shown.out
    opened = a_ring(shown.out)
    opened.clock.set_ms(before_ms)
    principal = await opened.ring.authenticate(key)
    assert (principal.name, principal.rights) == ('the "shop"', frozenset({Right.READ}))
    assert principal.redacted
    assert principal.clients.cover("shop-7")
    assert [principal.topics.cover(topic) for topic in "abc"] == [True, True, False]
    opened.clock.set_ms(before_ms + 30 * 86_400_000 - 1)
    assert await opened.accepts(key)
    opened.clock.set_ms(after_ms + 30 * 86_400_000)
    assert not await opened.accepts(key)


@pytest.mark.parametrize(("given", "named"), [(["--client", "a*b"], "--client"), (["--name", ""], "--name")])
def test_the_command_names_the_option_that_is_wrong(
    given: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", "--name", "n", "--client", "c", *given]) == 2
    assert f"clockwork: {named}: " in capsys.readouterr().err


def test_the_program_makes_keys_without_any_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOCKWORK_SHARDS", "not read at all")
    assert main(["keys", "new", "--name", "shop", "--client", "shop"]) == 0
    assert 'rights = ["create", "cancel", "read"]' in capsys.readouterr().out
