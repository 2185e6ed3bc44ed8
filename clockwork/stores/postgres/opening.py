"""Opens the store on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from clockwork.clock import Clock
from clockwork.ports.store import ObserveServerTime, Stores
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.client import TlsFiles, tls_of
from clockwork.stores.postgres.jobs import PostgresJobStore
from clockwork.stores.postgres.maintenance import Maintenance
from clockwork.stores.postgres.pauses import PostgresPauses
from clockwork.stores.postgres.registry import PostgresRegistry
from clockwork.stores.postgres.schema import PostgresSchema
from clockwork.stores.postgres.search import PostgresScheduleSearch
from clockwork.stores.postgres.store import PostgresScheduleStore


@asynccontextmanager
async def open_postgres(
    settings: PostgresSettings, *, shards: int, clock: Clock, observe: ObserveServerTime, telemetry: Telemetry
) -> AsyncIterator[Stores]:
    """Opens the store in these settings' schema, with its maintenance. Raises: CannotStart (an unusable TLS file)."""
    tls = tls_of(settings)
    async with PostgresScheduleStore(settings, clock, observe, telemetry, tls=tls) as store:
        telemetry.watch_store_pool(store.client.connections)
        # No task group around the block: the block's errors would leave it as a group.
        background = AsyncExitStack()
        group = await background.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(Maintenance(settings, tls, telemetry).run(), name="postgres-maintenance")
        try:
            yield stores_on(store, settings, tls, shards=shards)
        finally:
            task.cancel()
            await background.aclose()


def stores_on(
    store: PostgresScheduleStore, settings: PostgresSettings, tls: TlsFiles | None = None, *, shards: int
) -> Stores:
    """Everything that is asked of a store; `init` and `check` by connections of their own, the rest by this one's."""
    schema = PostgresSchema(settings, tls, shards=shards)
    own = [(tls.context, tls.own)] if tls is not None and tls.own is not None else []
    return Stores(
        schedules=store,
        search=PostgresScheduleSearch(store),
        jobs=PostgresJobStore(store.client),
        lists=True,
        pauses=PostgresPauses(store.client, store.statements),
        registry=PostgresRegistry(store.client, settings.schema),
        init=schema.init,
        check=schema.check,
        certificates=own,
    )
