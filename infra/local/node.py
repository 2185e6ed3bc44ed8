"""A node as a child process, for `make run`, the demo and the tests."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import aiohttp

from infra.local.child import Child
from infra.local.errors import LocalServicesError

READY_S_MAX: Final = 60.0
STOP_S_MAX: Final = 30.0
ASK_S: Final = 0.1
REPOSITORY: Final = Path(__file__).parents[2]
OURS: Final = ("CLOCKWORK_", "KAFKA_", "AWS_", "DYNAMODB_", "SCHEDULE_", "PARTITION_", "PG")
"""Prefixes of settings: a node gets only those that it is given here, none of the environment's."""

_CREDENTIALS: Final = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY": "local", "AWS_SECRET_KEY": "local"}
"""DynamoDB Local takes any credentials of letters and digits."""

Store = Literal["dynamodb", "postgresql", "memory"]


def store_settings(store: Store, address: str | None) -> dict[str, str]:
    """The settings of a node on this store. `address`: DynamoDB's endpoint, or the URL of the database."""
    if store == "dynamodb":
        return {"DYNAMODB_ENDPOINT": address or "", **_CREDENTIALS}
    of_store = {"CLOCKWORK_STORE": store, "CLOCKWORK_CREATE_RESOURCES": "true"}
    return of_store | ({} if store == "memory" else {"CLOCKWORK_POSTGRES_URL": address or ""})


def node_environment(
    *, kafka_brokers: str, store: Mapping[str, str], http_port: int, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The settings of a node on the local services. `store`: those of its store (`store_settings`)."""
    return {"KAFKA_BROKERS": kafka_brokers, "CLOCKWORK_HTTP_PORT": str(http_port), **store, **(more or {})}


class Launch(Protocol):
    """Starts a command, with its output appended to the log and this environment alone."""

    async def __call__(
        self, command: list[str], *, log_path: Path | None, cwd: Path, env: Mapping[str, str] | None
    ) -> Child: ...


class NodeProcess:
    """`python -m clockwork` with these settings; it ends with this process, however that ends.

    As a block: started at the beginning, ended by SIGTERM at the end. Without a log path its lines go to this process's
    standard error. `module` runs in the place of `clockwork`, with the same arguments (tests give a node a wrong clock so).
    `checkout`: another worktree, whose code runs in the place of this one's, on this one's Python packages.
    `launch` starts the command (tests have a quicker way).
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        role: str = "all",
        log_path: Path | None = None,
        module: str = "clockwork",
        checkout: Path | None = None,
        launch: Launch = Child.start,
    ) -> None:
        self._environment = dict(environment)
        self._role = role
        self._log_path = log_path
        self._module = module
        self._checkout = checkout
        self._launch = launch
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._environment['CLOCKWORK_HTTP_PORT']}"

    @property
    def code(self) -> int | None:
        """Exit code, 128 + n after signal n; None while it runs."""
        return self._opened().code

    async def start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        if self._checkout is not None:
            # Before the editable install of this one; with `-m` the working folder comes first, too.
            inherited["PYTHONPATH"] = str(self._checkout)
        self._child = await self._launch(
            [sys.executable, "-m", self._module, "--role", self._role],
            log_path=self._log_path,
            cwd=self._checkout or REPOSITORY,
            env={**inherited, **self._environment},
        )

    async def until_ready(self) -> None:
        """Raises: LocalServicesError if it ends, or is not ready in time."""
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + READY_S_MAX
        answer = "no answer"
        async with aiohttp.ClientSession() as session:
            while loop.time() < ends_at_s:
                if self.code is not None:
                    raise LocalServicesError(f"the node ended at its start with code {self.code}; see its log")
                try:
                    async with session.get(f"{self.url}/readyz") as response:
                        answer = await response.text()
                        if response.status == 200:
                            return
                except aiohttp.ClientError as error:
                    answer = str(error)
                await asyncio.sleep(ASK_S)
        raise LocalServicesError(f"the node is not ready after {READY_S_MAX:.0f} s: {answer}")

    async def until_end(self) -> int | None:
        return await self._opened().wait()

    def pause(self) -> None:
        """SIGSTOP: it looks dead to its group and its peers until it is resumed."""
        self._opened().pause()

    def resume(self) -> None:
        self._opened().resume()

    async def kill(self) -> None:
        """SIGKILL."""
        await self._opened().kill()

    async def stop(self, *, for_good: bool = False) -> int | None:
        """Sends SIGTERM (`for_good`: SIGUSR1) and returns the exit code. Kills it if it does not drain in time."""
        await self._opened().stop(STOP_S_MAX, number=signal.SIGUSR1 if for_good else signal.SIGTERM)
        return self.code

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            await self.stop()

    def _opened(self) -> Child:
        if self._child is None:
            raise RuntimeError("the node is not started")
        return self._child
