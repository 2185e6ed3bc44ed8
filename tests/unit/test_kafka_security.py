"""TLS and SASL towards Kafka: the part that needs no broker. The rest is in tests/real/test_secure_kafka.py."""

import asyncio
from pathlib import Path

import trustme

from clockwork.kafka.client import KafkaContext
from clockwork.kafka.security import KafkaSecurity, authentication_problem
from clockwork.tls import client_context, server_context
from infra.local.ports import free_port
from tests.support.certificates import ca_file, issue


def trusting(ca: trustme.CA, folder: Path) -> KafkaSecurity:
    context = client_context(ca=ca_file(ca, folder), ca_setting="CA", own=None, check_hostname=True)
    return KafkaSecurity(protocol="SSL", ssl_context=context)


async def reason(port: int, security: KafkaSecurity) -> str | None:
    return await authentication_problem(
        security, brokers=(f"127.0.0.1:{port}",), client_id="test", request_timeout_ms=60_000
    )


async def test_a_broker_that_is_away_refuses_no_credentials(tmp_path: Path) -> None:
    assert await reason(free_port(), trusting(trustme.CA(), tmp_path)) is None
    assert await reason(free_port(), KafkaSecurity()) is None


async def test_a_certificate_of_another_authority_or_for_another_name_is_named_with_the_settings(
    tmp_path: Path,
) -> None:
    ca = trustme.CA()
    pair = issue(ca, tmp_path, "broker", to="elsewhere.example")
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(pair.files)
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        named = await reason(port, trusting(trustme.CA(), tmp_path))
        assert named is not None
        assert "CLOCKWORK_KAFKA_TLS_CA" in named
        named = await reason(port, trusting(ca, tmp_path))
        assert named is not None
        assert "CLOCKWORK_KAFKA_TLS_CHECK_HOSTNAME" in named


async def test_a_port_that_speaks_no_tls_is_named_with_the_protocol(tmp_path: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"this is no TLS record\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        named = await reason(server.sockets[0].getsockname()[1], trusting(trustme.CA(), tmp_path))
    assert named is not None
    assert "CLOCKWORK_KAFKA_SECURITY_PROTOCOL" in named


def test_secrets_are_not_in_the_text_of_a_context() -> None:
    security = KafkaSecurity(protocol="SASL_PLAINTEXT", username="user", password="very-secret")
    assert "very-secret" not in repr(KafkaContext(security=security))
