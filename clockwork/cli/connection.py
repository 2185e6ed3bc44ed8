"""Commands that call a service: where it is, and how their failures become exit codes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import IO, Any, Final, Self, TypeVar

import click
from pydantic import BaseModel

from clockwork.cli import early_json, has_early_json
from clockwork.cli.exit_codes import FAILED, exit_code, failure_line
from clockwork.client import CallFailed, Client, Retries
from clockwork.client.aio import read_document
from clockwork.client.transport import Transport

PAGE_ITEMS: Final = 100

_Value = TypeVar("_Value")
_Document = TypeVar("_Document", bound=BaseModel)


class Connection:
    """One service under one address; each command opens its own client."""

    def __init__(self, url: str, api_key: str | None, retries: Retries) -> None:
        self.url = url
        self._api_key = api_key
        self._retries = retries

    @classmethod
    def of_options(cls, url: str, api_key_file: IO[bytes] | None, api_key: str | None, timeout_ms: int) -> Self:
        """Reads the key from the file, if there is one. Raises: click.BadParameter."""
        if api_key_file is not None:
            try:
                api_key = api_key_file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                # Without its cause, which has the file's content.
                raise click.BadParameter("is not UTF-8", param_hint="--api-key-file") from None
        # Editors and shells on Windows leave a byte order mark before a text, and a carriage return behind it.
        key = (api_key or "").removeprefix("\ufeff").strip()
        return cls(url, key or None, Retries(total_ms=timeout_ms))

    def client(self) -> Client:
        """A client, to be opened by `with`. Raises: click.UsageError if the address or the key cannot be one."""
        try:
            return Client(self.url, api_key=self._api_key, retries=self._retries)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    def run(self, work: Callable[[Transport], Awaitable[_Value]]) -> _Value:
        """Does the work with an open transport: for calls that the client has no method for.

        Raises: click.UsageError, as `client` does; CallFailed.
        """
        try:
            transport = Transport(self.url, api_key=self._api_key, retries=self._retries)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

        async def with_open_transport() -> _Value:
            async with transport:
                return await work(transport)

        return asyncio.run(with_open_transport())

    def call(self, model: type[_Document], method: str, path: str, body: Any = None) -> _Document:
        """Sends one request and reads its answer. `body`: None sends none. Raises: as `run`."""

        async def call_once(transport: Transport) -> _Document:
            # Some answers are shared for seconds among those that ask again and again: a command is asked once.
            headers = {"Cache-Control": "no-cache"} if method == "GET" else None
            return read_document(model, await transport.request(method, path, body=body, headers=headers))

        return self.run(call_once)


async def pages(
    transport: Transport, model: type[_Document], path: str, query: Mapping[str, str] | None = None
) -> AsyncIterator[_Document]:
    """Reads a list page by page, to its end. Raises: CallFailed."""
    parameters = {"limit": str(PAGE_ITEMS), **(query or {})}
    while True:
        page = read_document(model, await transport.request("GET", path, query=parameters))
        yield page
        cursor: str | None = getattr(page, "cursor", None)
        if cursor is None:
            return
        parameters["cursor"] = cursor


class ServiceCommand(click.Command):
    """A command that calls a service. A failed call ends it with one line on standard error and its exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses text that no request can carry, before anything is sent. Names of files may be any bytes."""
        rest = super().parse_args(ctx, args)
        if has_early_json(ctx) and not any("--json" in param.opts for param in self.params):
            raise click.UsageError(f"{self.name} takes no --json", ctx)
        for param in self.get_params(ctx):
            value = ctx.params.get(param.name or "")
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and not _is_unicode(text):
                    raise click.BadParameter("should be UTF-8", ctx, param)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CallFailed as error:
            click.echo(f"clockwork: {failure_line(error)}", err=True)
            raise click.exceptions.Exit(exit_code(error)) from error
        except BrokenPipeError:
            raise  # the reader of the output has gone: click ends the command without a word
        except OSError as error:
            # A file, or standard output on a full disk: calls that were answered have had their effect.
            click.echo(f"clockwork: {error}", err=True)
            raise click.exceptions.Exit(FAILED) from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_TWINS: Final = {"get": "show", "show": "get"}


class ServiceGroup(click.Group):
    """A group of such commands. `get` and `show` are one word in it, and `--json` may stand before a command."""

    command_class = ServiceCommand
    group_class = type

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.params.append(early_json())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, _TWINS.get(cmd_name, cmd_name))


connected = click.make_pass_decorator(Connection)
