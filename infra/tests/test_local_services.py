"""The real Kafka and DynamoDB Local start, answer, break on demand, and never outlive whoever started them.

These tests have services of their own: they break them.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from botocore.exceptions import ReadTimeoutError

from infra.local import LocalServices, PortTaken
from infra.local.jars import REPOSITORY
from infra.local.ports import free_port

pytestmark = [pytest.mark.real, pytest.mark.processes]

TOPIC = "kept"
TABLE = "kept"
ANSWER_SECONDS_MAX = 60.0
GONE_SECONDS_MAX = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Services that another process runs, by their addresses."""

    kafka_brokers: str
    dynamodb_endpoint: str


@pytest.fixture(scope="module")
async def own_services() -> AsyncIterator[LocalServices]:
    async with LocalServices() as services:
        await create_topic(services)
        yield services


@contextlib.asynccontextmanager
async def dynamodb(services: LocalServices | Running, **config: Any) -> AsyncIterator[Any]:
    session = get_session()
    async with session.create_client(
        "dynamodb",
        endpoint_url=services.dynamodb_endpoint,
        region_name="local",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=AioConfig(**config),
    ) as client:
        yield client


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def create_topic(services: LocalServices) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def create_table(client: Any) -> None:
    await client.create_table(
        TableName=TABLE,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


async def write_in_transaction(services: LocalServices | Running, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka_brokers, transactional_id="local-services")
    async with asyncio.timeout(ANSWER_SECONDS_MAX), producer, producer.transaction():
        await producer.send_and_wait(TOPIC, value)


async def read_all(services: LocalServices | Running) -> list[bytes]:
    """Every committed record of the topic. Its end is asked for as one who reads uncommitted: a commit is answered before
    the broker has written its marks everywhere, and until then a read_committed end lies before the transaction."""
    partition = TopicPartition(TOPIC, 0)
    async with AIOKafkaConsumer(bootstrap_servers=services.kafka_brokers) as unbiased:
        end = (await unbiased.end_offsets([partition]))[partition]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=services.kafka_brokers, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    consumer.assign([partition])
    records: list[bytes] = []
    async with asyncio.timeout(ANSWER_SECONDS_MAX), consumer:
        while await consumer.position(partition) < end:
            fetched = await consumer.getmany(partition, timeout_ms=100)
            records += [record.value for record in fetched.get(partition, [])]
    return records


async def test_the_pair_does_what_the_design_asks_of_it(own_services: LocalServices) -> None:
    # A transaction on one side, a conditional write on the other.
    await write_in_transaction(own_services, b"first")
    assert b"first" in await read_all(own_services)

    async with dynamodb(own_services) as client:
        await create_table(client)
        put = {"TableName": TABLE, "Item": {"id": {"S": "a"}}, "ConditionExpression": "attribute_not_exists(id)"}
        await client.transact_write_items(TransactItems=[{"Put": put}])
        with pytest.raises(client.exceptions.TransactionCanceledException):
            await client.transact_write_items(TransactItems=[{"Put": put}])


async def test_a_missing_topic_stays_missing_when_it_is_written_to(own_services: LocalServices) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=own_services.kafka_brokers)
    await admin.start()
    try:
        (description,) = await admin.describe_topics(["missing"])
        assert description["error_code"] == UnknownTopicOrPartitionError.errno
        assert "missing" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_nothing_is_written_outside_the_services_own_folders(own_services: LocalServices) -> None:
    assert set(names(own_services.log_dir)) <= {"kafka.log", "dynamodb.log", "jars.log"}
    assert own_services.log_dir.parent.name.startswith("clockwork-local-")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_kafka_refuses_connections_until_it_comes_back_on_its_port_with_its_records(
    own_services: LocalServices, end: str
) -> None:
    await write_in_transaction(own_services, end.encode())
    brokers = own_services.kafka_brokers
    host, port = brokers.split(":")

    await (own_services.stop_kafka() if end == "stop" else own_services.kill_kafka())
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
    await own_services.start_kafka()

    assert own_services.kafka_brokers == brokers
    assert end.encode() in await read_all(own_services)


async def test_a_paused_kafka_answers_nothing_until_it_is_resumed(own_services: LocalServices) -> None:
    own_services.pause_kafka()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await create_topic(own_services)

    own_services.resume_kafka()

    await read_all(own_services)


async def test_a_paused_dynamodb_answers_nothing_until_it_is_resumed(own_services: LocalServices) -> None:
    async with dynamodb(own_services, read_timeout=0.3, retries={"total_max_attempts": 1}) as client:
        own_services.pause_dynamodb()
        with pytest.raises(ReadTimeoutError):
            await client.list_tables()

        own_services.resume_dynamodb()
    async with dynamodb(own_services) as client:
        await client.list_tables()


@pytest.mark.parametrize(
    ("open_on", "message"),
    [
        (lambda port, logs: LocalServices(kafka_port=port, log_dir=logs), "Kafka cannot .* --kafka-port"),
        (
            lambda port, logs: LocalServices(dynamodb_port=port, log_dir=logs),
            "DynamoDB Local cannot .* --dynamodb-port",
        ),
    ],
    ids=["Kafka", "DynamoDB"],
)
async def test_a_taken_port_is_named_with_its_service_and_nothing_is_left_running(
    open_on: Callable[[int, Path], LocalServices], message: str, tmp_path: Path
) -> None:
    before = psutil.Process().children(recursive=True)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTaken, match=message) as raised:
        await open_on(port, tmp_path).__aenter__()

    assert str(port) in str(raised.value)
    assert psutil.Process().children(recursive=True) == before


class Foreground:
    """`python -m infra.local` as its user has it: a process, two lines, a signal."""

    def __init__(self, process: asyncio.subprocess.Process, lines: dict[str, str]) -> None:
        self.process = process
        self.lines = lines
        self.descendants = psutil.Process(process.pid).children(recursive=True)

    @property
    def javas(self) -> list[psutil.Process]:
        return [process for process in self.descendants if process.name() == "java"]

    async def all_gone(self) -> bool:
        _, left = await asyncio.to_thread(psutil.wait_procs, self.descendants, timeout=GONE_SECONDS_MAX)
        # In a container whose first process collects nobody, the dead stay in the table.
        return not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@contextlib.asynccontextmanager
async def foreground(temporary: Path, *arguments: str) -> AsyncIterator[Foreground]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infra.local",
        *arguments,
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            read = [(await process.stdout.readline()).decode().strip() for _ in range(2)]
        yield Foreground(process, dict(line.split("=", 1) for line in read))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_the_foreground_command_leaves_nothing_behind_however_it_ends(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with foreground(tmp_path) as command:
        assert set(command.lines) == {"KAFKA_BROKERS", "DYNAMODB_ENDPOINT"}
        assert len(command.javas) == 2

        command.process.send_signal(number)

        async with asyncio.timeout(GONE_SECONDS_MAX):
            code = await command.process.wait()
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert await command.all_gone()
    assert names(tmp_path) == []


async def test_the_foreground_command_takes_ports_and_folders_with_their_data_and_says_why_it_ends(
    tmp_path: Path,
) -> None:
    # One start after another on the same folders, the second by the command: its data is there. Then a service dies.
    data, logs, temporary = (tmp_path / name for name in ("data", "logs", "tmp"))
    temporary.mkdir()
    async with LocalServices(data_dir=data, log_dir=logs) as services:
        await create_topic(services)
        await write_in_transaction(services, b"kept")
        async with dynamodb(services) as client:
            await create_table(client)
            await client.put_item(TableName=TABLE, Item={"id": {"S": "kept"}})
    kafka_port, dynamodb_port = free_port(), free_port()
    ports = ["--kafka-port", str(kafka_port), "--dynamodb-port", str(dynamodb_port)]

    async with foreground(temporary, *ports, "--data-dir", str(data), "--log-dir", str(logs)) as command:
        brokers, endpoint = f"127.0.0.1:{kafka_port}", f"http://127.0.0.1:{dynamodb_port}"
        assert command.lines == {"KAFKA_BROKERS": brokers, "DYNAMODB_ENDPOINT": endpoint}
        assert names(logs) == ["dynamodb.log", "kafka.log"]
        assert names(temporary) == []
        again = Running(kafka_brokers=brokers, dynamodb_endpoint=endpoint)
        assert await read_all(again) == [b"kept"]
        async with dynamodb(again) as client:
            found = await client.get_item(TableName=TABLE, Key={"id": {"S": "kept"}})
        assert found["Item"] == {"id": {"S": "kept"}}

        command.javas[0].kill()
        async with asyncio.timeout(GONE_SECONDS_MAX):
            _, said = await command.process.communicate()
        assert command.process.returncode == 1
        assert b"ran out of memory or was killed" in said
        assert await command.all_gone()


async def test_without_a_network_the_first_start_says_what_it_needs_it_for(tmp_path: Path) -> None:
    # A proxy that nobody listens at stands for the missing network.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infra.local",
        cwd=REPOSITORY,
        env=os.environ
        | {"CLOCKWORK_LOCAL_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
        | dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        _, said = await process.communicate()

    assert process.returncode == 1
    assert b"the first start needs Maven Central once" in said
    assert b"Traceback" not in said
    assert names(tmp_path / "cache") == ["lock"]
