"""Which service the commands talk to."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from clockwork.cli.outcomes import told
from clockwork.client import Client, Retries


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


connected = click.make_pass_decorator(Connection)
