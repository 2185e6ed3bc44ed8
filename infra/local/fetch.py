"""Fetches the jars: `python -m infra.local.fetch`. The first start does it by itself.

jgo resolves a Maven coordinate in pure Python, but it builds its folder anew at each call, so two processes at once
break each other's, and a download that is interrupted stays behind as if it were whole. Hence everything
happens under a lock in a staging folder of our own, with a Maven repository of our own (the user's ~/.m2 is none of our
business), each jar is read through once, and only a complete folder is renamed into place.
"""

import argparse
import fcntl
import logging
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.errors import JarsUnavailable, LocalServicesError
from infra.local.jars import BUNDLES, Bundle, cache

REASON_LENGTH_MAX = 200


def fetch(bundle: Bundle) -> None:
    """Put the bundle's folder in place, unless another process did so while we waited for the lock."""
    with _staging() as staging:
        if bundle.folder.exists():
            return
        complete = staging / bundle.name
        complete.mkdir()
        for coordinate in bundle.coordinates:
            for jar in _resolve(coordinate, staging):
                shutil.copyfile(jar, complete / jar.name)
                _check(complete / jar.name)
        complete.rename(bundle.folder)


@contextmanager
def _staging() -> Iterator[Path]:
    """An empty folder for one process at a time; the kernel gives the lock back whatever its holder dies of."""
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
    """The jars of one coordinate and of all that it depends on."""
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext, PythonResolver

    # It warns of each native library that it is no jar.
    logging.getLogger("jgo").setLevel(logging.ERROR)
    try:
        maven = MavenContext(resolver=PythonResolver(), repo_cache=staging / "maven", local_repos=[])
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
    """Read the jar through: jgo only warns of a download that does not match its checksum."""
    try:
        with zipfile.ZipFile(jar) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = "its directory"
    if damaged is not None:
        raise JarsUnavailable(f"{jar.name} arrived damaged ({damaged}): try again")


def main() -> int:
    """The command line."""
    argparse.ArgumentParser(prog="python -m infra.local.fetch", description=__doc__).parse_args()
    try:
        for bundle in BUNDLES:
            fetch(bundle)
    except (LocalServicesError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
