"""PostgreSQL of this machine, or fetched: the one that is used, the user that it runs as, and what survives its end."""

import asyncio
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from infra.local import LocalServices, jars, postgres
from infra.local.errors import LocalServicesError, ServiceDied, UnsupportedPlatform
from infra.local.jars import Bundle
from infra.local.ports import free_port
from infra.local.postgres import Postgres, find_installed

ANSWER_S_MAX = 60.0


def programs(folder: Path, version: str) -> Path:
    """Programs that say they are of this version, and can nothing else."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder on the path."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv(postgres.PROGRAMS_VARIABLE, raising=False)
    monkeypatch.setattr(postgres, "_PLACES", (f"{str(tmp_path)[1:]}/usr/*/bin",))
    return tmp_path / "path"


def a_service(folder: Path) -> Postgres:
    return Postgres(port=None, home=folder, log_path=folder / "log", scratch=None)


def test_a_server_on_the_path_is_used_if_it_is_new_enough(path: Path) -> None:
    programs(path, "15.18 (Debian 15.18-0+deb12u1)")

    assert find_installed() == path
    assert a_service(path).bundle is None


def test_a_link_on_the_path_leads_to_the_folder_of_the_programs(path: Path, tmp_path: Path) -> None:
    elsewhere = programs(tmp_path / "server", "18.1")
    path.mkdir()
    (path / "postgres").symlink_to(elsewhere / "postgres")

    assert find_installed() == elsewhere


def test_the_newest_of_those_that_are_not_on_the_path_is_used(path: Path, tmp_path: Path) -> None:
    programs(path, "14.9")
    for version in ("9", "15", "100"):
        programs(tmp_path / "usr" / version / "bin", f"{version}.1")

    assert find_installed() == tmp_path / "usr" / "100" / "bin"


def test_programs_that_are_too_old_or_no_server_are_left_alone_and_others_fetched(path: Path) -> None:
    programs(path, "14.22")
    assert find_installed() is None
    assert a_service(path).bundle is jars.POSTGRES
    # A client without a server has a `postgres` nowhere, some have no `initdb`.
    (path / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n")
    (path / "initdb").unlink()
    assert find_installed() is None


def test_programs_that_are_named_go_before_those_on_the_path_and_have_to_be_right(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(path, "16.1")
    monkeypatch.setenv(postgres.PROGRAMS_VARIABLE, str(programs(tmp_path / "named", "17.2")))
    assert find_installed() == tmp_path / "named"

    monkeypatch.setenv(postgres.PROGRAMS_VARIABLE, postgres.FETCHED)
    assert find_installed() is None

    monkeypatch.setenv(postgres.PROGRAMS_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(LocalServicesError, match=r"CLOCKWORK_LOCAL_POSTGRES: .*/none should hold initdb and postgres"):
        find_installed()


def test_a_platform_for_which_none_can_be_fetched_is_told_to_install_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PLATFORM", "linux-riscv64")

    with pytest.raises(UnsupportedPlatform, match=r"no PostgreSQL for linux-riscv64 .* install PostgreSQL 15 or later"):
        _ = a_service(path).bundle


def test_what_is_fetched_is_unpacked_in_the_place_of_its_jar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        program = tarfile.TarInfo("bin/postgres")
        program.size, program.mode = 7, 0o755
        archive.addfile(program, io.BytesIO(b"program"))
    jar = tmp_path / "binaries.jar"
    with zipfile.ZipFile(jar, "w") as outer:
        outer.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0")
        outer.writestr("postgres-linux-x86_64.txz", packed.getvalue())
    monkeypatch.setenv(jars.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(jars, "_resolve", lambda coordinate, staging: [jar])
    bundle = Bundle(name="database", coordinates=("a:b:1",), archived=False, packed=True)

    jars.fetch(bundle)

    assert [each.name for each in bundle.folder.iterdir()] == ["bin"]
    assert (bundle.folder / "bin" / "postgres").read_bytes() == b"program"
    assert (bundle.folder / "bin" / "postgres").stat().st_mode & stat.S_IXUSR


# --- the server itself


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for kept data that another user may enter, as those of pytest are not."""
    made = Path(tempfile.mkdtemp(prefix="clockwork-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[Postgres]:
    service = Postgres(port=None, home=folder / "postgres", log_path=folder / "log", scratch=None)
    if (bundle := service.bundle) is not None:
        await jars.ensure_jars([bundle], folder / "jars.log", None)
    await service.start()
    try:
        yield service
    finally:
        await service.kill()


async def connected(service: Postgres) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(service.url, timeout=ANSWER_S_MAX)


def servers(of: Postgres) -> list[psutil.Process]:
    """The processes of this database. The test's own process may have others below it, of other tests."""
    found = psutil.Process(of._running_child()._keeper.pid).children(recursive=True)
    return [process for process in found if process.name().startswith("postgres")]


async def paused(service: Postgres) -> None:
    """Returns when all of its processes stand still."""
    service.pause()
    async with asyncio.timeout(ANSWER_S_MAX):
        # They send no signal when they stand.
        while any(process.status() != psutil.STATUS_STOPPED for process in servers(service)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.processes
@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill], ids=["stop", "kill"])
async def test_a_database_that_ended_comes_back_on_its_port_with_all_that_was_acknowledged(
    running: Postgres, end: Callable[[Postgres], Awaitable[None]]
) -> None:
    connection = await connected(running)
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SHOW fsync") == "on"
    assert int(await connection.fetchval("SHOW server_version_num")) >= 150_000
    await connection.execute("CREATE TABLE kept (a int)")
    await connection.execute("INSERT INTO kept VALUES (7)")
    url, processes = running.url, servers(running)

    # With a session open, which must not hold up the stop.
    await end(running)
    gone, _ = await asyncio.to_thread(psutil.wait_procs, processes, timeout=ANSWER_S_MAX)
    assert set(gone) == set(processes)
    await running.start()

    assert running.url == url
    again = await connected(running)
    assert await again.fetchval("SELECT a FROM kept") == 7
    await again.close()


@pytest.mark.processes
async def test_a_paused_database_answers_no_session_until_it_is_resumed(running: Postgres) -> None:
    # The sessions are processes of their own, which go on when only the first one stands still.
    connection = await connected(running)
    await paused(running)
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 1", timeout=0.3)

    running.resume()

    again = await connected(running)
    assert await again.fetchval("SELECT 1") == 1
    await again.close()
    connection.terminate()


@pytest.mark.processes
async def test_a_paused_database_can_be_killed_and_leaves_no_process(running: Postgres) -> None:
    connection = await connected(running)
    processes = servers(running)
    await paused(running)

    await running.kill()

    gone, _ = await asyncio.to_thread(psutil.wait_procs, processes, timeout=ANSWER_S_MAX)
    assert set(gone) == set(processes)
    connection.terminate()


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0, reason="another user runs it as itself")
async def test_root_runs_it_as_another_user_with_programs_that_this_user_can_read(
    running: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {process.uids().effective for process in servers(running)} == {postgres.UNPRIVILEGED}
    hidden = folder / "hidden"
    installed = running._installed or jars.POSTGRES.folder / "bin"
    hidden.mkdir(mode=0o700)
    other = Postgres(port=None, home=folder / "other", log_path=folder / "other.log", scratch=None)
    other._installed = hidden / "server" / "bin"
    # Links, as copying them shows which ones are run.
    shutil.copytree(installed.parent, hidden / "server", symlinks=True)

    command = await _prepared(other)

    assert command[0] == str(folder / "other" / "server" / "bin" / "postgres")


async def _prepared(service: Postgres) -> list[str]:
    async def no_command(command: list[str]) -> None:
        (service.home / "unfinished").mkdir()

    service.run_command = no_command  # type: ignore[method-assign]
    service.home.mkdir()
    return await service.prepare(free_port())


@pytest.mark.skipif(os.geteuid() != 0, reason="another user runs it as itself")
async def test_data_in_a_folder_that_the_other_user_may_not_enter_is_refused_with_its_name(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    service = a_service(closed / "postgres")

    with pytest.raises(LocalServicesError, match=r"its own user \(65534\) may not enter /.*choose a folder elsewhere"):
        await _prepared(service)


@pytest.mark.processes
async def test_a_database_of_another_version_says_so_at_its_start(running: Postgres) -> None:
    await running.stop()
    (running.home / "data" / "PG_VERSION").write_text("9.6\n")

    with pytest.raises(ServiceDied, match=r"(?s)PostgreSQL ended with code 1.*by PostgreSQL version 9\.6"):
        await running.start()


def test_without_a_database_there_is_no_url() -> None:
    with pytest.raises(RuntimeError, match="PostgreSQL was not asked for"):
        _ = LocalServices().postgres_url
