"""The node's own pages where several processes share its port: health and metrics of all of them.

The processes of a node (`clockwork.node.processes`) listen on one port, and the kernel gives each connection to one of them.
A probe or a scrape would reach any one, and a metric would jump between the processes. So each process also answers on a
Unix socket of its own, a file that only the node's user can open, and the process that is asked on the port asks all:

    /livez    503 if a process runs and does not answer, or says so itself: only a restart helps against a loop that hangs,
              or a clock that was set back far. A process that has died is no reason: the parent starts it again, and a
              restart of all would cost all their shards.
    /readyz   503 with the reasons of each process that runs. A dead process takes no connections, so it is named in the
              details and is no reason: the others go on serving, and its shards move.
    /metrics  the series of all processes, each with the label `process`; `clockwork_process_up` tells which answered.

Web pages cannot reach these sockets, so the checks of `http.same_origin` are on the port alone.

Rejected: Prometheus' own multi-process mode. It has no gauges that can be removed (of a shard that was released), no metrics
of the process itself, and files that outlive a process.
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
"""Time for a process to answer: a busy event loop takes milliseconds; below the usual time-outs of probes."""
_SERIES: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (.*)")
PROCESS_UP: Final = "clockwork_process_up"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sibling:
    """This process among those of its node."""

    number: int
    """From 0."""
    count: int
    folder: Path
    """The folder of the sockets, which only the node's user can open."""

    def socket(self, number: int) -> Path:
        return self.folder / f"{number}.sock"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """The answer of a process."""

    body: bytes
    content_type: str


_Answers = Mapping[int, _Answer | None]
"""Answers by process number; None: it runs and does not answer. A dead process is left out."""


@asynccontextmanager
async def answering_siblings(sibling: Sibling, state: Readiness, figures: Metrics) -> AsyncIterator[None]:
    """Answers the other processes on this process's own socket, for the length of a block. Raises: CannotStart."""

    async def show_state(_: web.Request) -> web.Response:
        document = {
            "reasons": state.reasons(),
            "details": state.details(),
            "needsRestart": state.needs_restart(),
        }
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
        path.unlink(missing_ok=True)  # left by an earlier process of this number
        await web.UnixSite(runner, path).start()
    except OSError as error:
        await runner.cleanup()
        raise CannotStart(f"no socket in {sibling.folder} for the other processes of this node: {error}") from error
    try:
        yield
    finally:
        await runner.cleanup()


@dataclass(frozen=True, kw_only=True, slots=True)
class SiblingPages:
    """`/livez`, `/readyz` and `/metrics` of the port that the processes share."""

    sibling: Sibling

    @LIVEZ
    async def livez(self, _: web.Request) -> web.Response:
        """Liveness: `503` if a process runs and only a restart helps it."""
        answers = await self._ask_all("/state")
        reasons = _silent(answers)
        for number, state in _states(answers).items():
            if state["needsRestart"] is not None:
                reasons.append(f"process {number}: {state['needsRestart']}")
        if reasons:
            return problem_response(problems.unavailable("; ".join(reasons), more={"reasons": reasons}))
        return _json({"status": "alive"})

    @READYZ
    async def readyz(self, _: web.Request) -> web.Response:
        """Readiness: `503` with the reasons of the processes that run and cannot do the work of their role."""
        answers = await self._ask_all("/state")
        states = _states(answers)
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
        """The metrics of all processes."""
        answers = await self._ask_all("/metrics")
        merged = _Merged()
        answer_by = {number: answer for number, answer in answers.items() if answer is not None}
        for number, answer in answer_by.items():
            merged.add(number, answer.body.decode())
            await asyncio.sleep(0)  # merging takes some milliseconds a process, in which the loop would do nothing else
        up = [f'{PROCESS_UP}{{process="{n}"}} {float(n in answer_by)}' for n in range(self.sibling.count)]
        merged.add_family(
            PROCESS_UP, [f"# HELP {PROCESS_UP} 1 if the process answered", f"# TYPE {PROCESS_UP} gauge", *up]
        )
        content_type = next((answer.content_type for answer in answer_by.values()), "text/plain")
        return web.Response(body=merged.text().encode(), headers={hdrs.CONTENT_TYPE: content_type})

    async def _ask_all(self, path: str) -> _Answers:
        numbers = range(self.sibling.count)
        answers = await asyncio.gather(*(self._ask_one(number, path) for number in numbers))
        return {number: answer for number, (lives, answer) in zip(numbers, answers, strict=True) if lives}

    async def _ask_one(self, number: int, path: str) -> tuple[bool, _Answer | None]:
        try:
            return True, await _ask(self.sibling.socket(number), path)
        except TimeoutError:
            return True, None
        except (aiohttp.ClientError, OSError):
            # No process listens there: it has died, or has not begun. Its parent restarts it.
            return False, None


async def _ask(socket: Path, path: str) -> _Answer:
    timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
    connector = aiohttp.UnixConnector(path=str(socket))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(f"http://sibling{path}") as response,
    ):
        return _Answer(body=await response.read(), content_type=response.headers.get(hdrs.CONTENT_TYPE, "text/plain"))


def _states(answers: _Answers) -> dict[int, Any]:
    return {number: orjson.loads(answer.body) for number, answer in answers.items() if answer is not None}


def _silent(answers: _Answers) -> list[str]:
    return [f"process {number} does not answer" for number, answer in answers.items() if answer is None]


def _json(document: Mapping[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


class _Merged:
    """Several expositions as one, in which all series of a metric stand together, as the format wants it."""

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
