"""The jars of both services: fetched once (fetch.py), then only read.

    <cache>/kafka-4.1.0/*.jar
    <cache>/dynamodb-local-3.1.0/*.jar

A folder is complete or absent, and never touched again: a later start needs neither jgo nor a network.
"""

import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.local.child import Child, log_end
from infra.local.errors import JarsUnavailable, PackagesMissing
from infra.local.java import INSTALL_HINT

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE_VARIABLE = "CLOCKWORK_LOCAL_CACHE"
FETCH_SECONDS_MAX = 900.0
"""It takes a minute on a fair connection, ten on a slow one; a dead one must not hold a test run for ever."""

logger = logging.getLogger("infra.local")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """The jars that one service needs."""

    name: str
    """The folder's name; it changes with the contents, so that an old cache is not taken for the new one."""

    coordinates: tuple[str, ...]
    """Each is resolved on its own: jgo lets one coordinate's managed versions change another's dependencies."""

    @property
    def folder(self) -> Path:
        return cache() / self.name


KAFKA = Bundle(
    name="kafka-4.1.0",
    # The second is what Kafka's own archive adds: without it slf4j drops every line, the fatal ones too.
    coordinates=("org.apache.kafka:kafka_2.13:4.1.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"),
)
DYNAMODB = Bundle(
    name="dynamodb-local-3.1.0",
    coordinates=("software.amazon.dynamodb:DynamoDBLocal:3.1.0",),
)
BUNDLES = (KAFKA, DYNAMODB)


def cache() -> Path:
    """Where the jars are kept. Not in the virtual environment, which people delete more often."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else REPOSITORY / ".cache" / "local-services"


async def ensure_jars(log_path: Path, scratch: Path | None) -> None:
    """Fetch what is missing; return at once when nothing is."""
    if all(bundle.folder.exists() for bundle in BUNDLES):
        return
    if importlib.util.find_spec("jgo") is None:
        raise PackagesMissing(f"the local services need the package jgo, which is missing: {INSTALL_HINT}")
    logger.info("fetching Kafka and DynamoDB Local into %s, once (about 100 MB)", cache())
    # A process, not a thread: Ctrl-C during the first minute should end it at once, which a thread does not let one do.
    command = [sys.executable, "-m", "infra.local.fetch"]
    async with Child.running(command, log_path=log_path, cwd=REPOSITORY, scratch=scratch) as child:
        code = await child.wait(FETCH_SECONDS_MAX)
    if code is None:
        raise JarsUnavailable(
            f"fetching Kafka and DynamoDB Local from Maven Central did not end within {FETCH_SECONDS_MAX:.0f} s: "
            f"is there a network? (log: {log_path})"
        )
    if code != 0:
        raise JarsUnavailable(log_end(log_path, lines_max=1) or f"fetching the jars failed (log: {log_path})")
