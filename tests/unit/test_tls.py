"""HTTPS and the certificates behind it: what is served, what is refused, and renewal under a running server."""

import asyncio
import codecs
import logging
import ssl
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
import trustme
from aiokafka.errors import AuthenticationFailedError
from cryptography import x509

from clockwork.errors import CannotStart
from clockwork.http.server import HttpServer, make_app
from clockwork.kafka.security import SIGNER, MskTokens, kafka_security
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import HttpSettings, KafkaSecuritySettings
from clockwork.tls import CertFiles, CertWatch, client_context, server_context
from tests.support.certificates import Pair, ca_file, issue
from tests.support.engine import Engine
from tests.unit.api_edge import FakeReadiness


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(ca: trustme.CA, tmp_path: Path) -> Pair:
    return issue(ca, tmp_path, "tls")


def trusting(ca: trustme.CA, folder: Path) -> ssl.SSLContext:
    return client_context(ca=ca_file(ca, folder), ca_setting="CA", own=None, check_hostname=True)


def a_server(context: ssl.SSLContext) -> HttpServer:
    settings = HttpSettings(port=0)
    return HttpServer(make_app(Engine().requests, settings, FakeReadiness(), NoTelemetry()), settings, context)


async def serial_shown(port: int, context: ssl.SSLContext) -> int:
    """Serial number of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number
    finally:
        writer.transport.abort()


async def test_with_a_certificate_the_server_speaks_https_and_nothing_else(
    ca: trustme.CA, pair: Pair, tmp_path: Path
) -> None:
    async with a_server(server_context(pair.files)) as server, aiohttp.ClientSession() as session:
        url = f"127.0.0.1:{server.port}/livez"
        async with session.get(f"https://{url}", ssl=trusting(ca, tmp_path)) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"https://{url}", ssl=ssl.create_default_context())
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://{url}")


def test_a_byte_order_mark_before_a_pem_file_is_read_as_if_it_were_not_there(
    ca: trustme.CA, pair: Pair, tmp_path: Path
) -> None:
    # As Notepad saves a file.
    trusted = ca_file(ca, tmp_path)
    for path in (pair.cert, pair.key, trusted):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    server_context(pair.files)
    context = client_context(ca=trusted, ca_setting="CA", own=pair.files, check_hostname=True)
    assert context.cert_store_stats()["x509_ca"] == 1


async def test_a_renewed_certificate_is_shown_to_new_connections_without_a_restart(
    ca: trustme.CA, pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    context, trust = server_context(pair.files), trusting(ca, tmp_path)
    watch = CertWatch([(context, pair.files)])
    async with a_server(context) as server:
        assert await serial_shown(server.port, trust) == pair.serial
        renewed = issue(ca, tmp_path, "tls")
        watch.check()
        assert await serial_shown(server.port, trust) == renewed.serial != pair.serial
    assert [r.event for r in caplog.records if hasattr(r, "event")].count("tls.reloaded") == 1


async def test_half_of_a_renewal_leaves_the_old_certificate_in_place(
    ca: trustme.CA, pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The certificate is there, its key not yet: the live context must not be left with one of each.
    context, trust = server_context(pair.files), trusting(ca, tmp_path)
    watch = CertWatch([(context, pair.files)])
    old_key = pair.key.read_bytes()
    renewed = issue(ca, tmp_path, "tls")
    new_key = pair.key.read_bytes()
    pair.key.write_bytes(old_key)
    async with a_server(context) as server:
        for _ in range(3):
            watch.check()
        assert await serial_shown(server.port, trust) == pair.serial
        pair.key.write_bytes(new_key)
        watch.check()
        assert await serial_shown(server.port, trust) == renewed.serial
    failures = [r for r in caplog.records if getattr(r, "event", None) == "tls.reload_failed"]
    assert len(failures) == 1


def test_a_certificate_that_disappears_is_said_once_and_kept(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    watch = CertWatch([(server_context(pair.files), pair.files)])
    pair.cert.unlink()
    watch.check()
    watch.check()
    assert [getattr(r, "event", None) for r in caplog.records] == ["tls.reload_failed"]


@pytest.mark.parametrize("broken", ["missing", "no PEM", "another's key", "encrypted"])
def test_a_certificate_that_cannot_be_used_stops_the_start_and_names_both_settings(
    ca: trustme.CA, pair: Pair, tmp_path: Path, broken: str
) -> None:
    match broken:
        case "missing":
            pair.cert.unlink()
        case "no PEM":
            pair.key.write_text("hello", encoding="utf-8")
        case "another's key":
            pair.key.write_bytes(issue(ca, tmp_path, "other").key.read_bytes())
        case _:
            pair.key.write_bytes(encrypted(pair.key.read_bytes()))
    with pytest.raises(CannotStart, match="CLOCKWORK_HTTP_TLS_CERT, CLOCKWORK_HTTP_TLS_KEY"):
        server_context(pair.files)


def encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    private = s.load_pem_private_key(key, password=None)
    return private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x"))


def test_a_ca_file_that_cannot_be_used_stops_the_start_and_names_the_setting(tmp_path: Path) -> None:
    for path in (tmp_path / "none.crt", tmp_path / "empty.crt"):
        with pytest.raises(CannotStart, match="CLOCKWORK_KAFKA_TLS_CA"):
            kafka_security(KafkaSecuritySettings(protocol="SSL", tls_ca=path), region="x")
        (tmp_path / "empty.crt").touch()


def test_the_context_for_kafka_verifies_the_name_unless_told_otherwise_and_always_the_chain(
    ca: trustme.CA, pair: Pair, tmp_path: Path
) -> None:
    path = ca_file(ca, tmp_path)
    strict = kafka_security(
        KafkaSecuritySettings(protocol="SSL", tls_ca=path, tls_cert=pair.cert, tls_key=pair.key), region="x"
    ).ssl_context
    loose = kafka_security(
        KafkaSecuritySettings(protocol="SASL_SSL", tls_ca=path, check_hostname=False), region="x"
    ).ssl_context
    assert strict is not None
    assert loose is not None
    assert (strict.check_hostname, loose.check_hostname) == (True, False)
    assert strict.verify_mode == loose.verify_mode == ssl.CERT_REQUIRED
    assert kafka_security(KafkaSecuritySettings(), region="x").ssl_context is None


class Signer(ModuleType):
    """In the place of Amazon's library."""

    asked: str | None = None
    error: Exception | None = None

    def generate_auth_token(self, region: str) -> tuple[str, int]:
        if self.error is not None:
            raise self.error
        self.asked = region
        return "token", 1


def iam() -> KafkaSecuritySettings:
    return KafkaSecuritySettings(protocol="SASL_SSL", sasl_mechanism="AWS_MSK_IAM")


async def test_msk_gets_a_token_of_its_region_as_oauth(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(SIGNER)
    monkeypatch.setitem(sys.modules, SIGNER.partition(".")[0], ModuleType("package"))
    monkeypatch.setitem(sys.modules, SIGNER, signer)
    security = kafka_security(iam(), region="eu-central-1")
    assert security.sasl_mechanism == "OAUTHBEARER"
    provider: Any = security.token_provider
    assert (await provider.token(), signer.asked) == ("token", "eu-central-1")

    # aiokafka's background tasks survive its own errors only.
    signer.error = RuntimeError("no credentials")
    with pytest.raises(AuthenticationFailedError, match="no credentials"):
        await provider.token()


def test_msk_without_its_library_stops_the_start_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, SIGNER.partition(".")[0], None)
    with pytest.raises(CannotStart, match=r"CLOCKWORK_KAFKA_SASL_MECHANISM: .*clockwork\[msk\]"):
        MskTokens("x")


def test_files_are_compared_by_more_than_their_times(ca: trustme.CA, pair: Pair, tmp_path: Path) -> None:
    # As Kubernetes renews a mounted secret: a link to another folder, whose files may be of the same second.
    link = tmp_path / "live"
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        folder.mkdir()
        issue(ca, folder, "tls")
    link.symlink_to(first)
    files = CertFiles(cert=link / "tls.crt", key=link / "tls.key", cert_setting="C", key_setting="K")
    before = files.stamp()
    link.unlink()
    link.symlink_to(second)
    assert files.stamp() != before
