"""Opens the store on DynamoDB."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from clockwork.clock import Clock
from clockwork.ports.store import ObserveServerTime, Stores
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.jobs import DynamoJobStore
from clockwork.stores.dynamodb.pauses import DynamoPauses
from clockwork.stores.dynamodb.registry import DynamoRegistry
from clockwork.stores.dynamodb.schema import check_tables, create_tables, init_cluster
from clockwork.stores.dynamodb.search import DynamoScheduleSearch
from clockwork.stores.dynamodb.store import DynamoScheduleStore


@asynccontextmanager
async def open_dynamodb(
    settings: DynamoSettings, *, shards: int, clock: Clock, observe: ObserveServerTime, telemetry: Telemetry
) -> AsyncIterator[Stores]:
    """The tables that these settings name."""
    async with DynamoScheduleStore(settings, clock, observe, telemetry) as store:
        yield stores_on(store, shards=shards)


def stores_on(store: DynamoScheduleStore, *, shards: int) -> Stores:
    """Everything that is asked of a store, through the client of this one."""
    client = store.client

    async def init() -> None:
        await create_tables(client)
        await init_cluster(client, shards=shards)

    return Stores(
        schedules=store,
        search=DynamoScheduleSearch(client),
        jobs=DynamoJobStore(client),
        lists=client.settings.search == "on",
        pauses=DynamoPauses(client),
        registry=DynamoRegistry(client),
        init=init,
        check=partial(check_tables, client, shards=shards),
    )
