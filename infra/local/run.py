"""`make run`: Kafka, DynamoDB Local and one node, until Ctrl-C.

The usual ports (9092, 8000, 8080) are taken where they are free, others where not. Where everything listens is written to
a file in the cache folder while it runs, so that `make demo` finds it.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from clockwork.kafka.client import KafkaContext
from clockwork.kafka.topics import create_topics
from clockwork.settings.model import KafkaSettings
from infra.local.errors import LocalServicesError
from infra.local.jars import cache
from infra.local.node import NodeProcess, node_environment
from infra.local.ports import free_port, is_free
from infra.local.services import LocalServices

KAFKA_PORT: Final = 9092
DYNAMODB_PORT: Final = 8000
HTTP_PORT: Final = 8080
DEMO_TOPICS: Final = ("orderTopic", "reminderTopic", "retryTopic")
DEMO_KAFKA_PARTITIONS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Where a running pair and its node are."""

    kafka_brokers: str
    dynamodb_endpoint: str
    http_url: str


def running_file() -> Path:
    return cache() / "running.json"


def find_running() -> Running:
    """What `make run` has started. Raises: LocalServicesError if it does not run."""
    try:
        return Running(**json.loads(running_file().read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise LocalServicesError("no node is running here: start one with `make run` in another terminal") from error


def usual_or_free(port: int) -> int:
    return port if is_free(port) else free_port()


def hello(running: Running, seconds: float) -> str:
    """What is printed when all is ready."""
    in_ten = '"$(($(date +%s) * 1000 + 10000))"'
    return f"""
Clockwork is ready after {seconds:.1f} s. Ctrl-C ends all of it.

  HTTP      {running.http_url}
  Kafka     {running.kafka_brokers}
  DynamoDB  {running.dynamodb_endpoint}
  topics    {", ".join(DEMO_TOPICS)}

Try it: an order that expires in ten seconds.

  curl -i {running.http_url}/schedule -H 'content-type: application/json' -d '{{
    "clientId": "shop", "scheduleKey": "order-1-'$(date +%s)'", "scheduleTime": '{in_ten}',
    "taskData": {{"expire": "order-1"}}, "delivery": {{"topic": "orderTopic"}}}}'

`make demo` in another terminal creates some hundred schedules, and shows how they arrive.
"""


async def run() -> None:
    """Until cancelled. Raises: LocalServicesError."""
    began_s = time.monotonic()
    async with LocalServices(
        kafka_port=usual_or_free(KAFKA_PORT), dynamodb_port=usual_or_free(DYNAMODB_PORT)
    ) as services:
        kafka = KafkaContext(settings=KafkaSettings(brokers=(services.kafka_brokers,)))
        # The broker's own clock stamps the records, so that anyone can see when they really arrived.
        stamped = {"message.timestamp.type": "LogAppendTime"}
        await create_topics(kafka, DEMO_TOPICS, kafka_partitions=DEMO_KAFKA_PARTITIONS, config=stamped)
        environment = node_environment(
            kafka_brokers=services.kafka_brokers,
            dynamodb_endpoint=services.dynamodb_endpoint,
            http_port=usual_or_free(HTTP_PORT),
        )
        async with NodeProcess(environment) as node:
            await node.until_ready()
            running = Running(
                kafka_brokers=services.kafka_brokers,
                dynamodb_endpoint=services.dynamodb_endpoint,
                http_url=node.url,
            )
            running_file().write_text(json.dumps(asdict(running)))
            try:
                print(hello(running, time.monotonic() - began_s), flush=True)
                await _until_something_dies(node, services)
            finally:
                running_file().unlink(missing_ok=True)


async def _until_something_dies(node: NodeProcess, services: LocalServices) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(services.until_one_dies(), name="watch-services")
        code = await node.until_end()
        raise LocalServicesError(f"the node ended with code {code}")


async def main() -> None:
    """The same, ended by SIGINT or SIGTERM: the first closes everything in order."""
    this_task = asyncio.current_task()
    assert this_task is not None
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if not asked:
            asked = True
            this_task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    with contextlib.suppress(asyncio.CancelledError):
        await run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        asyncio.run(main())
    except* LocalServicesError as errors:
        sys.exit("\n".join(str(error) for error in errors.exceptions))
