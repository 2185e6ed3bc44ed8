"""Stored reports of processes."""

import pytest

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import ProcessReport
from clockwork.errors import Unreadable
from clockwork.stores.registry_forms import report_of, report_text
from tests.support.builders import process_report


def test_a_report_comes_back_as_it_was() -> None:
    report = process_report()

    assert report_of(report.process, report.seen_at_ms, report_text(report)) == report


def test_a_report_of_another_version_is_read_as_far_as_it_is_known() -> None:
    text = '{"node": "h", "role": "all", "version": "2", "since_ms": 1, "colour": "red"}'
    assert report_of("b", 1, text) == ProcessReport(
        process=ProcessId("b"), seen_at_ms=1, node="h", role="all", version="2", since_ms=1
    )


@pytest.mark.parametrize("text", ["", "7", "[]", "{}", '{"node": 7, "role": "all", "version": "2", "since_ms": 1}'])
def test_what_is_no_report_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        report_of("b", 1, text)
