"""Other ways to the database of the tests: by another URL, as a user of its own, through a proxy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from pydantic import SecretStr

from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.store_fixtures import connected_once, execute, postgres_store_on
from tests.support.proxy import Proxy


def with_url(
    settings: PostgresSettings, *, hosts: str = "{}", path: str | None = None, options: str = ""
) -> PostgresSettings:
    """The settings with another URL. `hosts`: a pattern around the server's own; `path`: another database."""
    assert settings.url is not None
    parts = urlsplit(settings.url.get_secret_value())
    netloc = f"{parts.username}@{hosts.format(f'{parts.hostname}:{parts.port}')}"
    url = parts._replace(netloc=netloc, path=parts.path if path is None else path, query=options).geturl()
    return replace(settings, url=SecretStr(url))


@asynccontextmanager
async def store_through(proxy: Proxy, settings: PostgresSettings) -> AsyncIterator[PostgresScheduleStore]:
    """A store with one connection, which goes through the proxy."""
    async with postgres_store_on(replace(with_url(settings, hosts=proxy.address), pool=1)) as store:
        await connected_once(store)
        yield store


@asynccontextmanager
async def limited_role(settings: PostgresSettings) -> AsyncIterator[PostgresSettings]:
    """The settings with a user of its own, who may use the schema and do everything to its tables, but owns nothing."""
    name, schema = settings.schema.replace("test", "role"), settings.schema
    await execute(
        settings,
        f"CREATE ROLE {name} LOGIN",
        f"GRANT USAGE ON SCHEMA {schema} TO {name}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {name}",
    )
    try:
        yield replace(settings, user=name)
    finally:
        await execute(settings, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
