"""What one call to DynamoDB costs: CPU of this process per `PutItem` of 500 bytes, through the library and on our wire.

Both in the same run, alternating, one request at a time and sixteen; then the signatures alone.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clockwork.adapters.dynamo_client import DynamoClient
from clockwork.adapters.dynamo_signature import Identity, Signer
from clockwork.adapters.dynamo_tables import create_tables
from clockwork.adapters.dynamo_wire import DynamoClientSettings
from clockwork.adapters.telemetry import NoTelemetry
from clockwork.clock import ClockGuard, SystemClock
from infra.local import LocalServices

CALLS: Final = 1_000
ROUNDS: Final = 5
SIGNATURES: Final = 5_000

Put = Callable[[dict[str, Any]], Awaitable[object]]


async def cpu_us(put: Put, *, at_once: int) -> float:
    """CPU microseconds per call."""
    gate = asyncio.Semaphore(at_once)

    async def one(n: int) -> None:
        async with gate:
            await put({"clientKey": {"S": f"bench/{n}"}, "position": {"N": f"{n}.5"}, "d": {"S": "x" * 500}})

    before_s = time.process_time()
    async with asyncio.TaskGroup() as group:
        for n in range(CALLS):
            group.create_task(one(n), name=f"put-{n}")
    return (time.process_time() - before_s) / CALLS * 1e6


async def calls(endpoint: str) -> None:
    """Prints a line for each number of requests at a time."""
    clock = SystemClock()
    settings = DynamoClientSettings(region="us-east-1", endpoint=endpoint, access_key="local", secret_key="local")
    await create_tables(settings)
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(DynamoClient(settings, clock, ClockGuard(clock).observe, NoTelemetry()))
        library = await stack.enter_async_context(
            AioSession().create_client(
                "dynamodb",
                region_name=settings.region,
                endpoint_url=endpoint,
                aws_access_key_id="local",
                aws_secret_access_key="local",
                config=AioConfig(max_pool_connections=96, parameter_validation=False),
            )
        )

        async def through_library(item: dict[str, Any]) -> object:
            return await library.put_item(TableName=settings.keys_table, Item=item)

        async def on_our_wire(item: dict[str, Any]) -> object:
            return await ours.call("put_item", TableName=settings.keys_table, Item=item)

        for at_once in (1, 16):
            rounds = [
                (await cpu_us(through_library, at_once=at_once), await cpu_us(on_our_wire, at_once=at_once))
                for _ in range(ROUNDS)
            ]
            theirs_us, ours_us = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratios = sorted(theirs / our for theirs, our in rounds)
            print(
                f"PutItem, {at_once:>2} at a time: library {theirs_us:.0f} µs of CPU, ours {ours_us:.0f} µs; "
                f"{statistics.median(ratios):.1f} × ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            )


def signatures() -> None:
    """Prints the ratio of the two signers."""
    signer = Signer(host="127.0.0.1:8000", region="us-east-1")
    library = SigV4Auth(Credentials("local", "local"), "dynamodb", "us-east-1")
    identity, target, body = Identity("local", "local", None), "DynamoDB_20120810.PutItem", b"x" * 600
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target}
    started_s = time.process_time()
    for _ in range(SIGNATURES):
        library.add_auth(AWSRequest("POST", "http://127.0.0.1:8000/", headers=headers, data=body))
    middle_s = time.process_time()
    for _ in range(SIGNATURES):
        signer.headers(identity, target=target, body=body, now_ms=1_700_000_000_000)
    theirs_s, ours_s = middle_s - started_s, time.process_time() - middle_s
    print(
        f"signature: library {theirs_s / SIGNATURES * 1e6:.0f} µs, ours {ours_s / SIGNATURES * 1e6:.0f} µs; "
        f"{theirs_s / ours_s:.1f} ×"
    )


async def main() -> None:
    async with LocalServices() as services:
        await calls(services.dynamodb_endpoint)
    signatures()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    asyncio.run(main())
