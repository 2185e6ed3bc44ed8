"""`python -m infra.tests.stand_ins`: `python -m infra.local` with a line of Python in the place of each Java server.

For tests of the command itself: which signal ends it, and what it leaves behind. Those of the servers start them.
"""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.local import __main__, services
from infra.local.jars import Bundle
from infra.local.service import JavaService

SERVER = "import socket, sys, time; held = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


class StandIn(JavaService):
    """A server that accepts connections and does nothing else."""

    memory_mb = 1

    def __init__(self, *, port: int | None, home: Path, log_path: Path, scratch: Path | None, **_: Any) -> None:
        super().__init__(port=port, home=home, log_path=log_path, scratch=scratch)

    async def prepare(self, port: int) -> list[str]:
        (self.home / "data").write_text("as a server would write it")
        return [sys.executable, "-c", SERVER, str(port)]

    async def answers(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


class Kafka(StandIn):
    """In the place of Kafka."""

    name = "Kafka"
    jars = Bundle(name="none", coordinates=(), archived=False)
    port_option = "--kafka-port"


class DynamoDB(Kafka):
    """In the place of DynamoDB Local."""

    name = "DynamoDB Local"
    port_option = "--dynamodb-port"


async def no_jars(bundles: Sequence[Bundle], log_path: Path, scratch: Path | None) -> None:
    """In the place of `ensure_jars`: there is nothing to fetch."""


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "Kafka", Kafka)
        patch.setattr(services, "DynamoDB", DynamoDB)
        patch.setattr(services, "ensure_jars", no_jars)
        sys.exit(__main__.main())
