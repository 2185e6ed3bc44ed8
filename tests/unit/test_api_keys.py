"""API keys: their file, their hashes, and what changes while the node runs."""

import asyncio
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from clockwork.__main__ import main
from clockwork.access import keys as keys_module
from clockwork.access import keys_command
from clockwork.access.keys import KeyForm, KeyHash, KeyRing, hash_of, new_credential, read_hash, read_keys
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right
from clockwork.errors import StartRefused, TooManyRequests, Unauthenticated
from clockwork.observability.telemetry import PrometheusTelemetry
from tests.support.clocks import ManualClock
from tests.support.waiting import until
from tests.unit.api_edge import NOW_MS

EXAMPLE = Path(__file__).parents[2] / "config" / "keys.example.toml"


def an_entry(name: str = "shop", **changes: object) -> tuple[str, str]:
    """A new key, and its entry for the file."""
    credential, key_id = new_credential()
    given = {"clients": ["shop"], "topics": ["orders"], "rights": ["create"], **changes}
    form = KeyForm.model_validate({"id": key_id, "name": name, "hash": hash_of(credential).text(), **given})
    return credential, keys_command.entry(form)


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

    def is_current(self) -> bool:
        return "clockwork_auth_keys_current 1.0" in self.telemetry.exposition()[0].decode()


@pytest.fixture
def a_ring(tmp_path: Path) -> Callable[[str], Ring]:
    return lambda text: Ring(tmp_path / "keys.toml", text)


@pytest.fixture
def scrypts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The credentials that a hash was computed for, from now on."""
    computed: list[str] = []
    really = KeyHash.fits

    def counted(self: KeyHash, credential: str) -> bool:
        computed.append(credential)
        return really(self, credential)

    monkeypatch.setattr(KeyHash, "fits", counted)
    return computed


async def test_a_key_is_checked_once_and_known_from_then_on(a_ring: Callable[[str], Ring], scrypts: list[str]) -> None:
    credential, text = an_entry()
    ring = a_ring(text).ring
    assert ring.known(credential) is None
    principal = await ring.check(credential)
    assert (principal.name, principal.rights) == ("shop", frozenset({Right.CREATE}))
    assert ring.known(credential) == principal
    assert scrypts == [credential]


async def test_a_wrong_secret_an_unknown_id_and_no_key_at_all_get_one_answer(
    a_ring: Callable[[str], Ring], scrypts: list[str]
) -> None:
    credential, text = an_entry()
    ring = a_ring(text).ring
    wrong = credential[:-1] + ("A" if credential[-1] != "A" else "B")
    for each in (wrong, new_credential()[0], "cw_", "secret", credential + "x", credential.upper()):
        with pytest.raises(Unauthenticated) as refused:
            await ring.check(each)
        assert str(refused.value) == "This key is not valid here."
        assert ring.known(each) is None
    assert scrypts == [wrong]


async def test_a_key_counts_until_it_expires(a_ring: Callable[[str], Ring]) -> None:
    credential, text = an_entry(expires="2027-01-15T08:00:01Z")
    opened = a_ring(text)
    assert await opened.ring.check(credential)
    opened.clock.set_ms(NOW_MS + 999)
    assert opened.ring.known(credential)
    opened.clock.set_ms(NOW_MS + 1_000)
    assert opened.ring.known(credential) is None
    with pytest.raises(Unauthenticated):
        await opened.ring.check(credential)


async def test_a_removed_key_counts_no_longer_and_an_added_one_does(a_ring: Callable[[str], Ring]) -> None:
    (old, old_text), (new, new_text) = an_entry(), an_entry()
    opened = a_ring(old_text)
    assert await opened.ring.check(old)
    await opened.write(old_text + "\n" + new_text)
    assert opened.ring.known(old)
    assert await opened.ring.check(new)
    await opened.write(new_text)
    assert opened.ring.known(old) is None
    with pytest.raises(Unauthenticated):
        await opened.ring.check(old)


async def test_changed_rights_count_for_a_key_that_is_known(a_ring: Callable[[str], Ring]) -> None:
    credential, text = an_entry()
    opened = a_ring(text)
    await opened.ring.check(credential)
    await opened.write(text.replace('"create"', '"read"'))
    principal = opened.ring.known(credential)
    assert principal is not None
    assert principal.rights == {Right.READ}


async def test_an_id_that_gets_another_hash_makes_the_old_key_worthless(a_ring: Callable[[str], Ring]) -> None:
    credential, text = an_entry()
    opened = a_ring(text)
    await opened.ring.check(credential)
    other = hash_of("another").text()
    await opened.write("\n".join(f'hash = "{other}"' if x.startswith("hash") else x for x in text.splitlines()))
    assert opened.ring.known(credential) is None


@pytest.mark.parametrize("broken", ["[[keys]", "[[keys]]\nid = 1\n", "[[key]]\n", "\x00"])
async def test_a_broken_new_file_keeps_the_keys_and_says_so_until_it_is_mended(
    a_ring: Callable[[str], Ring], broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    credential, text = an_entry()
    opened = a_ring(text)
    await opened.ring.check(credential)
    for _ in range(3):
        await opened.write(broken)
    assert opened.ring.known(credential)
    assert not opened.is_current()
    assert [getattr(r, "event", "") for r in caplog.records if r.levelname == "ERROR"] == ["auth.keys_kept"]
    await opened.write(text)
    assert opened.is_current()


async def test_a_file_that_is_gone_for_a_moment_keeps_the_keys(a_ring: Callable[[str], Ring]) -> None:
    credential, text = an_entry()
    opened = a_ring(text)
    opened.path.unlink()
    await opened.ring.reload()
    assert not opened.is_current()
    assert await opened.ring.check(credential)


async def test_the_ring_looks_at_its_file_by_itself(
    a_ring: Callable[[str], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_S", 0.0)
    opened = a_ring("")
    credential, text = an_entry()
    opened.path.write_text(text, encoding="utf-8")

    async def look() -> bool:
        return "clockwork_auth_keys 1.0" in opened.telemetry.exposition()[0].decode()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(opened.ring.run())
        await until(look, "the new key")
        running.cancel()
    assert await opened.ring.check(credential)


async def test_more_checks_than_a_node_can_do_are_refused_for_now(
    a_ring: Callable[[str], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "SCRYPTS_WAITING_MAX", 0)
    credential, text = an_entry()
    with pytest.raises(TooManyRequests):
        await a_ring(text).ring.check(credential)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("rights = [", 'rights = ["all", '), "keys.0.rights.0: "),
        (('["shop"]', '["sh*p"]'), "keys.0.clients: "),
        (('["orders"]', '[""]'), "keys.0.topics: "),
        (("$14$", "$30$"), "keys.0.hash: "),
        (("$8$1$", "$8$9$"), "keys.0.hash: "),
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
    with pytest.raises(StartRefused) as refused:
        a_ring(text.replace(*change))
    assert "CLOCKWORK_AUTH_KEYS_FILE: " in str(refused.value)
    assert named in str(refused.value)
    kept = tomllib.loads(text)["keys"][0]["hash"].rsplit("$", 1)[1]
    assert kept not in str(refused.value)


def test_an_id_that_is_there_twice_stops_the_start(a_ring: Callable[[str], Ring]) -> None:
    _, text = an_entry()
    with pytest.raises(StartRefused, match=r"keys\.1\.id: is there twice"):
        a_ring(text + text)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match=r"CLOCKWORK_AUTH_KEYS_FILE: .*No such file"):
        KeyRing(tmp_path / "none.toml", ManualClock(NOW_MS), PrometheusTelemetry())


def test_the_example_file_can_be_read() -> None:
    shop, support = read_keys(EXAMPLE.read_bytes()).values()
    assert shop.principal.clients.cover("shop-7")
    assert support.principal.rights == {Right.READ}


def test_a_hash_is_read_as_it_was_written_and_never_made_twice_alike() -> None:
    one, other = hash_of("x"), hash_of("x")
    assert one != other
    assert read_hash(one.text()) == one
    assert one.fits("x")
    assert not one.fits("y")


def test_the_command_shows_the_key_apart_from_its_entry_and_the_entry_fits_it(
    capsys: pytest.CaptureFixture[str],
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
    before_ms = SystemClock().now_ms()
    assert main([*arguments, "--right", "read"]) == 0
    after_ms = SystemClock().now_ms()
    shown = capsys.readouterr()
    credential = next(line.strip() for line in shown.err.splitlines() if line.strip().startswith("cw_"))
    assert credential.split("_", 2)[2] not in shown.out
    (key,) = read_keys(shown.out.encode()).values()
    assert key.hash.fits(credential)
    assert key.principal.name == 'the "shop"'
    assert key.expires_at_ms is not None
    assert before_ms // 1_000 * 1_000 <= key.expires_at_ms - 30 * 86_400_000 <= after_ms


@pytest.mark.parametrize(("given", "named"), [(["--client", "a*b"], "--client"), (["--name", ""], "--name")])
def test_the_command_names_the_option_that_is_wrong(
    given: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", "--name", "n", "--client", "c", *given]) == 2
    assert f"clockwork: {named}: " in capsys.readouterr().err
