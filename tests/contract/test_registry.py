"""`Registry`, on each store."""

from dataclasses import replace

from clockwork.domain.registry import KnownClient
from clockwork.domain.schedule import ClientId
from clockwork.ports.registry import Registry
from tests.support.builders import process_report

REPORT = process_report()


async def test_a_processs_last_report_is_listed(registry: Registry) -> None:
    assert await registry.list_reports() == []
    other = process_report("00" * 8, node="h:1", role="api")
    for report in (REPORT, other):
        await registry.put_report(report)
    later = replace(REPORT, seen_at_ms=REPORT.seen_at_ms + 10_000, shards=0, kafka=None)
    await registry.put_report(later)
    assert await registry.list_reports() == [other, later]


async def test_a_report_is_deleted_only_as_it_was_read(registry: Registry) -> None:
    await registry.put_report(REPORT)
    await registry.delete_report(REPORT.process, seen_at_ms=REPORT.seen_at_ms - 1)
    assert await registry.list_reports() == [REPORT]
    for _ in range(2):
        await registry.delete_report(REPORT.process, seen_at_ms=REPORT.seen_at_ms)
        assert await registry.list_reports() == []


async def test_a_clients_first_day_stays_and_its_last_never_goes_back(registry: Registry) -> None:
    for day in (20_000, 20_000, 20_003, 20_001):
        await registry.put_client(ClientId("shop"), day=day)
    page = await registry.list_clients(clients_max=10)
    assert page.clients == (KnownClient(client_id=ClientId("shop"), first_day=20_000, last_day=20_003),)
    assert page.complete


async def test_clients_come_by_name_and_say_if_there_are_more(registry: Registry) -> None:
    for name in ("b", "B", "a", "c-1", "c.1"):
        await registry.put_client(ClientId(name), day=20_000)
    assert [each.client_id for each in (await registry.list_clients(clients_max=5)).clients] == [
        "B",
        "a",
        "b",
        "c-1",
        "c.1",
    ]
    page = await registry.list_clients(clients_max=2)
    assert ([each.client_id for each in page.clients], page.complete) == (["B", "a"], False)
