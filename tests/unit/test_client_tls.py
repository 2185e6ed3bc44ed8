"""The client and the command line over HTTPS, with an authority of one's own."""

import asyncio
import os
import sys
from pathlib import Path

import trustme

from clockwork.http.server import HttpServer
from clockwork.settings.model import HttpSettings
from clockwork.tls import server_context
from tests.support.certificates import ca_file, issue
from tests.support.engine import Engine
from tests.unit.service import app_of


async def get(url: str, **environ: str) -> tuple[int | None, str]:
    """In a process of its own: what is trusted is read when it starts."""
    command = ("-m", "clockwork", "--url", url, "schedule", "get", "shop", "none")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env={**os.environ, **environ}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_an_authority_of_ones_own_is_trusted_where_it_is_named_and_else_not(tmp_path: Path) -> None:
    ca = trustme.CA()
    context = server_context(issue(ca, tmp_path, "tls").files)
    async with HttpServer(app_of(Engine()), HttpSettings(port=0), context) as server:
        url = f"https://127.0.0.1:{server.port}"
        code, said = await get(url, SSL_CERT_FILE=str(ca_file(ca, tmp_path)))
        assert (code, said.count("No schedule")) == (4, 1)
        code, said = await get(url)
        assert code == 9
        assert "certificate" in said
