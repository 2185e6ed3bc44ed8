"""What the commands under `clockwork admin` have in common."""

from collections.abc import AsyncIterator, Mapping
from typing import Final, TypeVar

import click
from pydantic import BaseModel

from clockwork.cli.connection import Connection
from clockwork.client.aio import read_document
from clockwork.client.transport import Transport

PAGE_ITEMS: Final = 100

_Document = TypeVar("_Document", bound=BaseModel)

json_option = click.option("--json", "json_", is_flag=True, help="As the API answers it.")


def asked(connection: Connection, model: type[_Document], method: str, path: str) -> _Document:
    """The answer of one call. Ends the command if it fails."""

    async def ask(http: Transport) -> _Document:
        return read_document(model, await http.ask(method, path))

    return connection.run(ask)


async def pages(
    http: Transport, model: type[_Document], path: str, query: Mapping[str, str] | None = None
) -> AsyncIterator[_Document]:
    """Page after page, to the end."""
    given = {"limit": str(PAGE_ITEMS), **(query or {})}
    while True:
        page = read_document(model, await http.ask("GET", path, query=given))
        yield page
        cursor: str | None = getattr(page, "cursor", None)
        if cursor is None:
            return
        given["cursor"] = cursor


def as_json(document: BaseModel) -> str:
    """As the API answers it, in one line."""
    return document.model_dump_json(by_alias=True, exclude_unset=True)
