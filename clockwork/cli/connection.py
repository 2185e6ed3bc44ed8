"""Which service the commands talk to."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from clockwork.cli.outcomes import told
from clockwork.client import Client, Retries
from clockwork.client.transport import Transport

_Value = TypeVar("_Value")


class Connection:
    """Where the service is; opened by the commands that call it."""

    def __init__(self, url: str, api_key: str | None, retries: Retries) -> None:
        self.url = url
        self._api_key = api_key
        self._retries = retries

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Failures inside end the command, with their exit code."""
        try:
            client = Client(self.url, api_key=self._api_key, retries=self._retries)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with told(), client:
            yield client

    def run(self, work: Callable[[Transport], Awaitable[_Value]]) -> _Value:
        """For calls that the client has no method for. Failures end the command, as above."""
        try:
            http = Transport(self.url, api_key=self._api_key, retries=self._retries)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

        async def opened() -> _Value:
            async with http:
                return await work(http)

        with told():
            return asyncio.run(opened())


connected = click.make_pass_decorator(Connection)
