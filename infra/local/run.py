"""`make run`: Kafka, DynamoDB Local and one node, until Ctrl-C. `make run STORE=postgresql`: with PostgreSQL in the place of
DynamoDB Local; `make run STORE=memory`: without either.

The usual ports (9092, 8000 or 5432, 8080) are taken where they are free, others where not. The addresses are in a file in
the cache folder while it runs, so that `make demo` finds them.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

from clockwork.kafka.client import KafkaContext
from clockwork.kafka.topics import create_topics
from clockwork.settings.model import KafkaSettings
from infra.local.errors import LocalServicesError
from infra.local.jars import cache
from infra.local.node import NodeProcess, Store, node_environment, store_settings
from infra.local.ports import free_port, is_free
from infra.local.services import LocalServices

KAFKA_PORT: Final = 9092
DYNAMODB_PORT: Final = 8000
POSTGRES_PORT: Final = 5432
HTTP_PORT: Final = 8080
DEMO_TOPICS: Final = ("orderTopic", "reminderTopic", "retryTopic")
DEMO_KAFKA_PARTITIONS: Final = 4
_STORE_NAMES: Final = ", ".join(get_args(Store)[:-1]) + f" or {get_args(Store)[-1]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Addresses of running services and their node."""

    kafka_brokers: str
    store: Store
    store_address: str | None
    """DynamoDB's endpoint, or the URL of the database; None: the node keeps its schedules in memory."""
    http_url: str


def running_file() -> Path:
    """The file that holds the addresses while everything runs."""
    return cache() / "running.json"


def find_running() -> Running:
    """Reads where the services of `make run` listen. Raises: LocalServicesError if it does not run."""
    try:
        return Running(**json.loads(running_file().read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise LocalServicesError("no node is running here: start one with `make run` in another terminal") from error


def usual_or_free(port: int) -> int:
    """This port if it is free, else another one."""
    return port if is_free(port) else free_port()


def hello(running: Running, seconds: float) -> str:
    """The text that is printed when all is ready."""
    in_ten = '"$(($(date +%s) * 1000 + 10000))"'
    return f"""
Clockwork is ready after {seconds:.1f} s. Ctrl-C ends all of it.

  dashboard {running.http_url}/ui/
  HTTP      {running.http_url}
  Kafka     {running.kafka_brokers}
  store     {running.store_address or "memory: schedules end with the node"}
  topics    {", ".join(DEMO_TOPICS)}

Try it: an order that expires in ten seconds.

  curl -i {running.http_url}/schedule -H 'content-type: application/json' -d '{{
    "clientId": "shop", "scheduleKey": "order-1-'$(date +%s)'", "scheduleTime": '{in_ten}',
    "taskData": {{"expire": "order-1"}}, "delivery": {{"topic": "orderTopic"}}}}'

`make demo` in another terminal creates some hundred schedules, and shows how they arrive.
"""


async def run(store: Store, began_s: float) -> None:
    """Starts services and node, and keeps them until it is cancelled. Raises: LocalServicesError.

    `began_s`: when the wait for it began, in seconds of the wall clock, as `make` has it.
    """
    async with LocalServices(
        kafka_port=usual_or_free(KAFKA_PORT),
        dynamodb=store == "dynamodb",
        dynamodb_port=usual_or_free(DYNAMODB_PORT),
        postgres=store == "postgresql",
        postgres_port=usual_or_free(POSTGRES_PORT),
    ) as services:
        address = services.address_of(store)
        kafka = KafkaContext(settings=KafkaSettings(brokers=(services.kafka_brokers,)))
        # The broker's own clock stamps the records, so that anyone can see when they really arrived.
        stamped = {"message.timestamp.type": "LogAppendTime"}
        await create_topics(kafka, DEMO_TOPICS, kafka_partitions=DEMO_KAFKA_PARTITIONS, config=stamped)
        environment = node_environment(
            kafka_brokers=services.kafka_brokers,
            store=store_settings(store, address),
            http_port=usual_or_free(HTTP_PORT),
            more={"CLOCKWORK_JOBS": "on"},
        )
        async with NodeProcess(environment) as node:
            await node.until_ready()
            running = Running(
                kafka_brokers=services.kafka_brokers,
                store=store,
                store_address=address,
                http_url=node.url,
            )
            running_file().write_text(json.dumps(asdict(running)))
            try:
                print(hello(running, max(0.0, _now_s() - began_s)), flush=True)
                await _until_something_dies(node, services)
            finally:
                running_file().unlink(missing_ok=True)


async def _until_something_dies(node: NodeProcess, services: LocalServices) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(services.until_one_dies(), name="watch-services")
        code = await node.until_end()
        raise LocalServicesError(f"the node ended with code {code}")


def _now_s() -> float:
    return time.time()  # noqa: TID251 - a command that starts before this one has no other clock in common with it


async def run_until_signal(store: Store, began_s: float) -> None:
    """Runs all of it until SIGINT or SIGTERM, the first of which closes everything in order. Raises: as `run`."""
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
        await run(store, began_s)


def store_name(text: str) -> str:
    """A store that a node can be run on here. Raises: argparse.ArgumentTypeError."""
    if text not in get_args(Store):
        raise argparse.ArgumentTypeError(f"{text!r} should be {_STORE_NAMES}")
    return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=store_name, default="dynamodb", help=f"{_STORE_NAMES}; default: dynamodb")
    parser.add_argument(
        "--began", type=float, metavar="SECONDS", help="Epoch seconds at which make began; default: now"
    )
    arguments = parser.parse_args()
    store: Store = arguments.store
    began_s: float = _now_s() if arguments.began is None else arguments.began
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # The first start takes minutes, and says what it fetches.
    logging.getLogger("infra.local").setLevel(logging.INFO)
    try:
        asyncio.run(run_until_signal(store, began_s))
    except* LocalServicesError as errors:
        sys.exit("\n".join(str(error) for error in errors.exceptions))


if __name__ == "__main__":
    main()
