"""HTTPS at a node of two processes: one port, one certificate, read and renewed by each of them."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme
from cryptography import x509

from clockwork.tls import client_context
from tests.support.certificates import ca_file, issue
from tests.support.client import NO_ANSWER, Client
from tests.support.nodes import SHARDS, Cluster, ClusterNode
from tests.support.reader import reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

CREATES = 40
CONNECTIONS = 20
"""The kernel deals them out to the processes; that one of two gets none of twenty, or forty, is next to impossible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Https:
    """A node that speaks HTTPS, and who trusts it."""

    node: ClusterNode
    client: Client
    trust: ssl.SSLContext

    async def serials(self) -> set[int]:
        """Serial numbers of the certificates that new connections are shown."""

        async def one() -> int:
            port = int(self.client.url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.trust)
            try:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                return x509.load_der_x509_certificate(shown).serial_number
            finally:
                writer.transport.abort()

        return set(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))

    async def by_process(self, name: str, labels: str) -> dict[str, float]:
        """The value of a series in each process."""
        pattern = rf'^{name}\{{process="(\d)",{re.escape(labels)}\}} (\S+)$'
        return {number: float(value) for number, value in re.findall(pattern, await self.client.metrics(), re.M)}


@asynccontextmanager
async def over_https(node: ClusterNode, ca: trustme.CA, folder: Path) -> AsyncIterator[Https]:
    trust = client_context(ca=ca_file(ca, folder), ca_setting="CA", own=None, check_hostname=True)
    # Every request is a connection of its own, so that both processes get some.
    connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = Client(session, node.process.url.replace("http://", "https://"))

        async def shared() -> bool:
            try:
                answered = await client.readyz()
            except NO_ANSWER:
                return False
            each = answered.body["details"].get("processes", {}).values() if answered.status == 200 else ()
            return [state["shardsOwned"] for state in each if state != "down"] == [SHARDS // 2] * 2

        await until(shared, "two processes over HTTPS with half of the shards each")
        yield Https(node=node, client=client, trust=trust)


async def test_two_processes_share_a_port_and_a_certificate_and_both_renew_it(cluster: Cluster, tmp_path: Path) -> None:
    ca, topic = trustme.CA(), await cluster.topic()
    pair = issue(ca, tmp_path, "tls")
    tls = {"CLOCKWORK_HTTP_TLS_CERT": str(pair.cert), "CLOCKWORK_HTTP_TLS_KEY": str(pair.key)}
    node = await cluster.start(more={"CLOCKWORK_PROCESSES": "2", **tls}, ready=False)
    async with over_https(node, ca, tmp_path) as https, reading(cluster.services.kafka_brokers, topic) as reader:
        keys = [f"k{n}" for n in range(CREATES)]
        bodies = [cluster.body(topic, key, in_ms=300) for key in keys]
        answers = await asyncio.gather(*map(https.client.create, bodies))
        assert {answered.status for answered in answers} == {201}
        await reader.until_arrived(keys)

        created = await https.by_process("clockwork_schedules_total", 'result="created"')
        assert sum(created.values()) == CREATES
        assert set(created) == {number for number, count in created.items() if count} == {"0", "1"}
        delivered = await https.by_process("clockwork_deliveries_total", 'guarantee="exactly_once",result="delivered"')
        assert sum(delivered.values()) == CREATES
        assert 'clockwork_process_up{process="1"} 1' in await https.client.metrics()
        assert (await https.client.livez()).status == 200
        with pytest.raises(aiohttp.ClientError):
            await node.client.livez()  # without TLS

        assert await https.serials() == {pair.serial}
        renewed = issue(ca, tmp_path, "tls")
        await node.until_logged("tls.reloaded", times=2)
        assert {line["sibling"] for line in node.logged("tls.reloaded")} == {0, 1}
        assert await https.serials() == {renewed.serial}
        assert (await https.client.create(bodies[0])).status == 200
    assert await node.process.stop() == 0


async def test_a_certificate_that_cannot_be_used_ends_the_node_and_not_in_a_loop(
    cluster: Cluster, tmp_path: Path
) -> None:
    # Each of the processes refuses; the parent must not start them again and again.
    pair = issue(trustme.CA(), tmp_path, "tls")
    pair.key.write_text("no key", encoding="utf-8")
    tls = {"CLOCKWORK_HTTP_TLS_CERT": str(pair.cert), "CLOCKWORK_HTTP_TLS_KEY": str(pair.key)}
    node = await cluster.start(more={"CLOCKWORK_PROCESSES": "2", **tls}, ready=False)
    assert await node.process.until_end() == 2
    said = node.log_path.read_text(encoding="utf-8")
    assert "CLOCKWORK_HTTP_TLS_CERT, CLOCKWORK_HTTP_TLS_KEY: " in said
    assert len(node.logged("process.started")) == 2
