"""The real Kafka and DynamoDB Local start, answer, break on demand, and end with the process that started them.

These tests have services of their own: they break them.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
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
from infra.local.ports import free_port
from infra.tests.foreground import foreground, names

pytestmark = [pytest.mark.real, pytest.mark.processes]

TOPIC = "kept"
TABLE = "kept"
ANSWER_SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
async def own_services() -> AsyncIterator[LocalServices]:
    async with LocalServices() as services:
        await create_topic(services.kafka_brokers)
        yield services


@contextlib.asynccontextmanager
async def dynamodb(endpoint: str, **config: Any) -> AsyncIterator[Any]:
    session = get_session()
    async with session.create_client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="local",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=AioConfig(**config),
    ) as client:
        yield client


async def create_topic(brokers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
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


async def write_in_transaction(brokers: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id="local-services")
    async with asyncio.timeout(ANSWER_SECONDS_MAX), producer, producer.transaction():
        await producer.send_and_wait(TOPIC, value)


async def read_all(brokers: str) -> list[bytes]:
    """Every committed record of the topic. Its end is asked for with read_uncommitted: a commit is answered before the
    broker has written its marks everywhere, and until then a read_committed end lies before the transaction."""
    partition = TopicPartition(TOPIC, 0)
    async with AIOKafkaConsumer(bootstrap_servers=brokers) as unbiased:
        end = (await unbiased.end_offsets([partition]))[partition]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, isolation_level="read_committed", auto_offset_reset="earliest"
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
    await write_in_transaction(own_services.kafka_brokers, b"first")
    assert b"first" in await read_all(own_services.kafka_brokers)

    async with dynamodb(own_services.dynamodb_endpoint) as client:
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


@pytest.mark.parametrize("end", [LocalServices.stop_kafka, LocalServices.kill_kafka], ids=["stop", "kill"])
async def test_an_ended_kafka_refuses_connections_and_comes_back_on_its_port_with_its_records(
    own_services: LocalServices, end: Callable[[LocalServices], Awaitable[None]]
) -> None:
    value = end.__name__.encode()
    await write_in_transaction(own_services.kafka_brokers, value)
    brokers = own_services.kafka_brokers
    host, port = brokers.split(":")

    await end(own_services)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
    await own_services.start_kafka()

    assert own_services.kafka_brokers == brokers
    assert value in await read_all(own_services.kafka_brokers)


async def test_a_paused_kafka_answers_nothing_until_it_is_resumed(own_services: LocalServices) -> None:
    own_services.pause_kafka()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await create_topic(own_services.kafka_brokers)

    own_services.resume_kafka()

    await read_all(own_services.kafka_brokers)


async def test_a_paused_dynamodb_answers_nothing_until_it_is_resumed(own_services: LocalServices) -> None:
    async with dynamodb(own_services.dynamodb_endpoint, read_timeout=0.3, retries={"total_max_attempts": 1}) as client:
        own_services.pause_dynamodb()
        with pytest.raises(ReadTimeoutError):
            await client.list_tables()

        own_services.resume_dynamodb()
    async with dynamodb(own_services.dynamodb_endpoint) as client:
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


async def test_the_foreground_command_keeps_data_on_the_ports_and_in_the_folders_that_it_is_given(
    tmp_path: Path,
) -> None:
    kafka_port, dynamodb_port = free_port(), free_port()
    brokers, endpoint = f"127.0.0.1:{kafka_port}", f"http://127.0.0.1:{dynamodb_port}"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    arguments = ["--kafka-port", str(kafka_port), "--dynamodb-port", str(dynamodb_port)]
    arguments += ["--data-dir", str(tmp_path / "data"), "--log-dir", str(tmp_path / "logs")]

    async with foreground(temporary, *arguments) as command:
        assert command.lines == {"KAFKA_BROKERS": brokers, "DYNAMODB_ENDPOINT": endpoint}
        await create_topic(brokers)
        await write_in_transaction(brokers, b"kept")
        async with dynamodb(endpoint) as client:
            await create_table(client)
            await client.put_item(TableName=TABLE, Item={"id": {"S": "kept"}})
        command.process.send_signal(signal.SIGTERM)
        assert (await command.end())[0] == 0
        assert await command.all_gone()

    async with foreground(temporary, *arguments) as command:
        assert await read_all(brokers) == [b"kept"]
        async with dynamodb(endpoint) as client:
            found = await client.get_item(TableName=TABLE, Key={"id": {"S": "kept"}})
        assert found["Item"] == {"id": {"S": "kept"}}
        assert [process.name() for process in command.servers] == ["java", "java"]
        command.servers[0].kill()
        code, said = await command.end()
        assert code == 1
        assert "ran out of memory or was killed" in said
        assert await command.all_gone()
    assert names(tmp_path / "logs") == ["dynamodb.log", "kafka.log"]
    assert names(temporary) == []


async def test_a_killed_foreground_command_takes_both_services_and_their_files_with_it(tmp_path: Path) -> None:
    async with foreground(tmp_path) as command:
        assert [process.name() for process in command.servers] == ["java", "java"]

        command.process.kill()

        assert (await command.end())[0] == -signal.SIGKILL
        assert await command.all_gone()
    assert names(tmp_path) == []
