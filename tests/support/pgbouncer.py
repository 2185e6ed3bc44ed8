"""PgBouncer in transaction mode, in front of the local PostgreSQL, as `infra/postgres/pgbouncer.ini` has it."""

import asyncio
import os
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from infra.local.service import Service

PROGRAM_VARIABLE: Final = "CLOCKWORK_PGBOUNCER"
"""Name of the variable that holds the program. Without it no contract runs through a pooler: `make pgbouncer` sets it."""
CONFIGURATION: Final = Path(__file__).parents[2] / "infra" / "postgres" / "pgbouncer.ini"
POOL: Final = 3
"""Connections to the server: fewer than a store has to the pooler, so that statements of one session take several."""


class PgBouncer(Service):
    """Without passwords: everyone is the local server's own user."""

    name = "PgBouncer"
    port_option = "none"
    memory_mb = 8

    def __init__(self, program: str, server_url: str, **of_service: Any) -> None:
        super().__init__(**of_service)
        self._program = str(Path(program).absolute())
        self._server = urlsplit(server_url)

    @property
    def bundle(self) -> None:
        """See `Service`."""
        return

    @property
    def url(self) -> str:
        return self._server._replace(netloc=f"{self._server.username}@127.0.0.1:{self.port}").geturl()

    async def prepare(self, port: int) -> list[str]:
        """See `Service`."""
        server, name = self._server, self._server.path[1:]
        database = f"{name} = host={server.hostname} port={server.port} dbname={name} user={server.username} "
        text = CONFIGURATION.read_text(encoding="utf-8")
        for pattern, value in (
            (r"^schedules = .*(?=connect_query)", database),
            (r"^(listen_port =).*", rf"\1 {port}"),
            (r"^(default_pool_size =).*", rf"\1 {POOL}"),
            (r"^auth_type =.*", "auth_type = any"),
            (r"^auth_file =.*\n", "user = nobody\n" if os.geteuid() == 0 else ""),
        ):
            text, count = re.subn(pattern, value, text, flags=re.MULTILINE)
            assert count == 1, pattern
        file = self.home / "pgbouncer.ini"
        file.write_text(f"{text}unix_socket_dir =\n", encoding="utf-8")
        return [self._program, str(file)]

    async def answers(self, port: int) -> bool:
        """See `Service`."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.transport.abort()
        return True
