"""The stores behind `clockwork.ports.store`, a folder each, and the one function that opens them."""

from contextlib import AbstractAsyncContextManager, nullcontext

from clockwork.clock import Clock
from clockwork.ports.store import ObserveServerTime, Stores
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import Settings


def open_stores(
    settings: Settings, *, clock: Clock, observe: ObserveServerTime, telemetry: Telemetry
) -> AbstractAsyncContextManager[Stores]:
    """Opens the store that `CLOCKWORK_STORE` names, and closes it at the end of the block. Nothing is asked of it yet.
    `observe` is told the times that the store states."""
    # Adapters are imported when they are opened: a node needs the client library of its own store, and of no other.
    shards = settings.intake.shards
    match settings.store.kind:
        case "memory":
            from clockwork.stores.memory.running import new_memory_stores

            lists = settings.dynamo.search == "on"
            return nullcontext(
                new_memory_stores(shards=shards, lists=lists, clock=clock, observe=observe, telemetry=telemetry)
            )
        case "dynamodb":
            from clockwork.stores.dynamodb.opening import open_dynamodb

            return open_dynamodb(settings.dynamo, shards=shards, clock=clock, observe=observe, telemetry=telemetry)
