"""A service of canned answers, for the tests of the client and the command line; and how a command is run against it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from click.testing import CliRunner, Result

from clockwork.__main__ import clockwork
from clockwork.client import Retries
from clockwork.http.responses import problem_response
from clockwork.schema.problems import Problem
from tests.support.examples import PENDING

FAST = Retries(initial_ms=1, wait_ms_max=2)
DROP = "drop"
"""Instead of an answer: the connection is cut, after the request was read."""
SECRET = "secret-key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    method: str
    path: str
    """As it was sent."""
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """An answer by its bytes, whatever its type says."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Canned = Problem | Raw | str | tuple[int, Any] | Callable[[Asked], tuple[int, Any]]


@dataclass
class Stub:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: list[Canned] = field(default_factory=list)
    """For the next requests, one by one; the last one stays."""

    def will(self, *answers: Canned) -> None:
        self.answers = list(answers)

    @property
    def lines(self) -> Sequence[str]:
        return [f"{each.method} {each.path}" for each in self.asked]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        asked = Asked(method=request.method, path=request.raw_path, headers=dict(request.headers), body=body)
        self.asked.append(asked)
        canned = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer = canned(asked) if callable(canned) else canned
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if isinstance(answer, Problem):
            return problem_response(answer)
        if isinstance(answer, Raw):
            headers = {"Content-Type": answer.content_type, **answer.headers}
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        status, document = answer
        return web.json_response(document, status=status)


@asynccontextmanager
async def open_stub() -> AsyncIterator[Stub]:
    stub = Stub()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        stub.url = f"http://{host}:{port}"
        stub.will((200, PENDING))
        yield stub
    finally:
        await runner.cleanup()


def results(asked: Asked) -> tuple[int, Any]:
    """A batch in which everything works; the schedules are those that were sent."""
    return 200, {
        "results": [
            {"status": 201, "schedule": {**PENDING, **each, "delivery": PENDING["delivery"]}}
            for each in asked.body["schedules"]
        ]
    }


async def run_command(
    url: str, *arguments: str, timeout_ms: int = 1, env: dict[str, str] | None = None, charset: str = "utf-8"
) -> Result:
    """Runs a command of `clockwork` against this service, in a thread: it waits for answers that this thread's loop gives.

    `charset`: of its standard output.
    """
    environment = {"CLOCKWORK_URL": url, "CLOCKWORK_API_KEY": SECRET, "COLUMNS": "200", **(env or {})}
    given = ["--timeout-ms", str(timeout_ms), *arguments]
    result = await asyncio.to_thread(lambda: CliRunner(charset=charset).invoke(clockwork, given, env=environment))
    assert SECRET not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
