"""The price of one call to DynamoDB: CPU of this process per `PutItem` of 500 bytes, by the library and on our wire.

Both in the same run, alternating, one request at a time and sixteen; then the signatures alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clockwork.stores.dynamodb.schema import create_tables
from clockwork.stores.dynamodb.signature import Identity, Signer
from tests.benchmarks.figures import Finding
from tests.benchmarks.world import Bench, dynamo, dynamo_settings

CALLS: Final = 1_000
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


async def beside_the_library(bench: Bench) -> None:
    async with bench.cluster() as cluster, AsyncExitStack() as stack:
        settings = dynamo_settings(cluster)
        ours = await stack.enter_async_context(dynamo(cluster))
        await create_tables(ours)
        library = await stack.enter_async_context(
            AioSession().create_client(
                "dynamodb",
                region_name=settings.region,
                endpoint_url=settings.endpoint,
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
                (await cpu_us(on_our_wire, at_once=at_once), await cpu_us(through_library, at_once=at_once))
                for _ in range(bench.rounds)
            ]
            _report(bench, f"CPU of a PutItem of 500 bytes, {at_once} at a time", rounds)
    _report(bench, "CPU of a signature", [signatures_us() for _ in range(bench.rounds)])


def _report(bench: Bench, what: str, rounds: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*rounds, strict=True)
    bench.report.add(Finding(scenario="calls", what=what, unit="µs", rounds=ours, yardstick=theirs))


def signatures_us() -> tuple[float, float]:
    """Ours, and the library's."""
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
    return (time.process_time() - middle_s) / SIGNATURES * 1e6, (middle_s - started_s) / SIGNATURES * 1e6
