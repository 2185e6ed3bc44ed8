"""One port, several processes: what is said about the node is said about all of them.

The processes of a node (`clockwork.node.processes`) listen on one port, and the kernel gives each connection to one of them.
A probe or a scrape would so reach any one, and a figure would jump between the processes. So each of them also answers on
a socket of its own, a file that only the node's user can open, and whichever is asked on the port asks all:

    /livez    503 if one of them lives and does not answer: only a restart helps against a loop that hangs. One that has
              died is no reason: the parent starts it again, and a restart of all would cost all their shards.
    /readyz   503 with the reasons of each that lives. One that is dead takes no connections, so it is named in the
              details and is no reason: the rest goes on serving, and its shards move.
    /metrics  the series of all, each with the label `process`; `clockwork_process_up` tells which of them answered.

Prometheus' own multi-process mode was left out: it has no gauges that can be taken back (a shard that was released), no
figures of the process itself, and files that outlive a process.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import hdrs, web

from clockwork.errors import CannotStart
from clockwork.http.node_pages import LIVEZ, METRICS, READYZ, Metrics, Readiness
from clockwork.http.responses import problem_response
from clockwork.schema import problems

ANSWER_S_MAX: Final = 2.0
"""A loop that is busy answers within milliseconds; below the time-outs that probes usually have."""
_SERIES: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (.*)")
PROCESS_UP: Final = "clockwork_process_up"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sibling:
    """This process among those of its node."""

    number: int
    """From 0."""
    count: int
    folder: Path
    """Where the sockets are; nobody else's."""

    def socket(self, number: int) -> Path:
        return self.folder / f"{number}.sock"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """What a sibling answered."""

    body: bytes
    content_type: str


_Answers = Mapping[int, _Said | None]
"""By number; None: it lives and says nothing. One that is dead is not in it."""


@asynccontextmanager
async def answering_siblings(sibling: Sibling, state: Readiness, figures: Metrics) -> AsyncIterator[None]:
    """Answers the others on this process's own socket, for the length of a block. Raises: CannotStart."""

    async def show_state(_: web.Request) -> web.Response:
        document = {"reasons": state.reasons(), "details": state.details()}
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    async def show_metrics(_: web.Request) -> web.Response:
        body, content_type = figures.exposition()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    app = web.Application()
    app.router.add_get("/state", show_state)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    path = sibling.socket(sibling.number)
    try:
        await runner.setup()
        path.unlink(missing_ok=True)  # of the process before, which died
        await web.UnixSite(runner, path).start()
    except OSError as error:
        await runner.cleanup()
        raise CannotStart(f"no socket in {sibling.folder} for the other processes of this node: {error}") from error
    try:
        yield
    finally:
        await runner.cleanup()


@dataclass(frozen=True, kw_only=True, slots=True)
class SiblingHandlers:
    """`/livez`, `/readyz` and `/metrics` of the port that the processes share."""

    sibling: Sibling

    @LIVEZ
    async def livez(self, _: web.Request) -> web.Response:
        """Whether each process that lives turns its loop."""
        if silent := _silent(await self._ask_all("/state")):
            return problem_response(problems.unavailable("; ".join(silent), more={"reasons": silent}))
        return _json({"status": "alive"})

    @READYZ
    async def readyz(self, _: web.Request) -> web.Response:
        """Whether each process that lives can do what its role does."""
        answers = await self._ask_all("/state")
        states = {number: orjson.loads(said.body) for number, said in answers.items() if said is not None}
        reasons = _silent(answers)
        reasons += [f"process {number}: {why}" for number, state in states.items() for why in state["reasons"]]
        each = {str(n): states[n]["details"] if n in states else "down" for n in range(self.sibling.count)}
        owned = sum(state["details"].get("shardsOwned", 0) for state in states.values())
        details = {"shardsOwned": owned, "processes": each}
        if reasons:
            more = {"reasons": reasons, "details": details}
            return problem_response(problems.unavailable("; ".join(reasons), more=more))
        return _json({"status": "ready", "reasons": [], "details": details})

    @METRICS
    async def show_metrics(self, _: web.Request) -> web.Response:
        """The series of all."""
        answers = await self._ask_all("/metrics")
        merged = _Merged()
        said_by = {number: said for number, said in answers.items() if said is not None}
        for number, said in said_by.items():
            merged.add(number, said.body.decode())
            await asyncio.sleep(0)  # some ms each, and the loop has other things to do
        up = [f'{PROCESS_UP}{{process="{n}"}} {float(n in said_by)}' for n in range(self.sibling.count)]
        merged.add_family(
            PROCESS_UP, [f"# HELP {PROCESS_UP} Whether this process answered", f"# TYPE {PROCESS_UP} gauge", *up]
        )
        content_type = next((said.content_type for said in said_by.values()), "text/plain")
        return web.Response(body=merged.text().encode(), headers={hdrs.CONTENT_TYPE: content_type})

    async def _ask_all(self, path: str) -> _Answers:
        numbers = range(self.sibling.count)
        answers = await asyncio.gather(*(self._unless_dead(number, path) for number in numbers))
        return {number: said for number, (lives, said) in zip(numbers, answers, strict=True) if lives}

    async def _unless_dead(self, number: int, path: str) -> tuple[bool, _Said | None]:
        try:
            return True, await _ask(self.sibling.socket(number), path)
        except TimeoutError:
            return True, None
        except (aiohttp.ClientError, OSError):
            # Nobody listens there (any more): it has died, or has not begun. Its parent knows.
            return False, None


async def _ask(socket: Path, path: str) -> _Said:
    timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
    connector = aiohttp.UnixConnector(path=str(socket))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(f"http://sibling{path}") as response,
    ):
        return _Said(body=await response.read(), content_type=response.headers.get(hdrs.CONTENT_TYPE, "text/plain"))


def _silent(answers: _Answers) -> list[str]:
    return [f"process {number} does not answer" for number, said in answers.items() if said is None]


def _json(document: Mapping[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


class _Merged:
    """Several expositions in one: all series of a metric have to stand together."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, number: int, text: str) -> None:
        label = f'process="{number}"'
        known = frozenset(self._families)
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                if family not in known:
                    self._families.setdefault(family, []).append(line)
            elif (found := _SERIES.fullmatch(line)) is not None:
                name, labels, value = found.groups()
                labelled = f"{label},{labels}" if labels else label
                self._families.setdefault(family, []).append(f"{name}{{{labelled}}} {value}")

    def add_family(self, name: str, lines: Iterable[str]) -> None:
        self._families[name] = list(lines)

    def text(self) -> str:
        return "".join(f"{line}\n" for lines in self._families.values() for line in lines)
