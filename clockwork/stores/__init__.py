"""The stores behind `clockwork.ports.store`, a folder each, what they share, and the function that opens one."""

from contextlib import AbstractAsyncContextManager, nullcontext

from clockwork.clock import Clock
from clockwork.errors import CannotStart
from clockwork.ports.store import ObserveServerTime, Stores
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import Settings


def open_stores(
    settings: Settings, *, clock: Clock, observe: ObserveServerTime, telemetry: Telemetry
) -> AbstractAsyncContextManager[Stores]:
    """Opens the store that `CLOCKWORK_STORE` names, and closes it at the end of the block. Nothing is asked of it yet.
    `observe` is told the times that the store states.

    Raises: CannotStart (its client library is missing; when entered, also an unusable TLS file).
    """
    # Adapters are imported when they are opened: a node needs the client library of its own store, and of no other.
    shards = settings.intake.shards
    match settings.store.kind:
        case "memory":
            from clockwork.stores.memory.running import new_memory_stores

            lists = settings.dynamo.search == "on"
            return nullcontext(
                new_memory_stores(shards=shards, lists=lists, clock=clock, observe=observe, telemetry=telemetry)
            )
        case "postgresql":
            try:
                from clockwork.stores.postgres.opening import open_postgres
            except ModuleNotFoundError as error:
                if error.name != "asyncpg":
                    raise
                raise CannotStart(
                    "CLOCKWORK_STORE: postgresql needs a library that is missing: pip install 'clockwork[postgresql]'"
                ) from error
            return open_postgres(settings.postgres, shards=shards, clock=clock, observe=observe, telemetry=telemetry)
        case "dynamodb":
            from clockwork.stores.dynamodb.opening import open_dynamodb

            return open_dynamodb(settings.dynamo, shards=shards, clock=clock, observe=observe, telemetry=telemetry)
