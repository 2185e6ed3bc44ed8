"""The file of `clockwork job apply`: what it declares, and what is told of a wrong one."""

import pytest

from clockwork.cli.jobs_file import JobsFile, JobsFileRefused, read_jobs_file
from clockwork.schema.job import read_job

NOW_MS = 1_800_000_000_000
GOOD = """\
name = "shop-jobs"
clientId = "shop"

[defaults]
delivery = { topic = "reports", guarantee = "at_least_once" }
labels = { team = "web" }

[jobs.report]
trigger = { type = "cron", expression = "0 9 * * MON-FRI", timeZone = "Europe/Berlin" }
taskData = { day = 1 }
delivery.headers = { a = "b" }

[jobs."by hand"]
durable = true
taskData = "x"

[profiles.test]
clientId = "test-shop"
name = "test-jobs"
triggers = false

[profiles.test.defaults]
delivery.topic = "test-reports"

[profiles.test.jobs.report]
taskData = 0
labels = {}
"""


def read(text: str, profile: str | None = None) -> JobsFile:
    return read_jobs_file(text.encode(), profile=profile, now_ms=NOW_MS)


def problems(text: str, profile: str | None = None) -> list[str]:
    with pytest.raises(JobsFileRefused) as refused:
        read(text, profile)
    return refused.value.problems


def test_a_file_declares_each_job_over_its_defaults() -> None:
    found = read(GOOD)
    assert (found.name, found.client_id, list(found.jobs)) == ("shop-jobs", "shop", ["report", "by hand"])
    delivery = {"topic": "reports", "guarantee": "at_least_once"}
    assert found.jobs["report"] == {
        **{"clientId": "shop", "jobId": "report", "taskData": {"day": 1}},
        "trigger": {"type": "cron", "expression": "0 9 * * MON-FRI", "timeZone": "Europe/Berlin"},
        "delivery": {**delivery, "headers": {"a": "b"}},
        "labels": {"team": "web", "jobs-file": "shop-jobs"},
    }
    assert found.jobs["by hand"]["delivery"] == delivery


def test_a_profile_is_laid_over_it_and_may_leave_the_triggers_out() -> None:
    found = read(GOOD, "test")
    assert (found.name, found.client_id) == ("test-jobs", "test-shop")
    assert found.jobs["report"] == {
        **{"clientId": "test-shop", "jobId": "report", "taskData": 0, "durable": True},
        "delivery": {"topic": "test-reports", "guarantee": "at_least_once", "headers": {"a": "b"}},
        "labels": {"jobs-file": "test-jobs"},
    }
    assert found.jobs["by hand"]["delivery"]["topic"] == "test-reports"


def test_every_declaration_is_one_that_the_service_reads() -> None:
    for profile in (None, "test"):
        for document in read(GOOD, profile).jobs.values():
            read_job(document, cluster="clockwork", now_ms=NOW_MS, traceparent=None)


def test_every_wrong_entry_is_told_at_once_with_its_table_and_line() -> None:
    text = """\
name = "n"
clientId = "a b"
colour = 1

[defaults]
delivery.topic = "__internal"

[jobs.one]
taskData = 1
trigger = { type = "cron", expression = "61 * * * *" }

[jobs.two]
trigger.type = "fixed_rate"
trigger.everyMs = 5
delivery.topic = "t"
priority = 11
jobId = "other"

[jobs.two.labels]
jobs-file = "x"

[profiles.test.jobs.three]
"""
    found = problems(text)
    assert [each.partition(": ")[0] for each in found] == [
        *("line 2", "line 3", "line 6 [defaults]", "line 10 [jobs.one]", "line 12 [jobs.two]"),
        *("line 14 [jobs.two]", "line 16 [jobs.two]", "line 17 [jobs.two]", "line 20 [jobs.two]"),
        "line 22 [profiles.test.jobs.three]",
    ]
    assert "delivery.topic: topics that begin with __ are Kafka's own (of job 'one')" in found[2]
    assert "trigger.expression" in found[3]
    assert "taskData: is required" in found[4]
    assert "trigger.everyMs" in found[5]
    assert "labels.jobs-file: is set by the file's name" in found[8]
    assert found[9].endswith("is no job of this file")


@pytest.mark.parametrize(
    ("text", "profile", "said"),
    [
        ("name = ", None, "is not TOML: Invalid value (at"),
        ('name = "n"\nclientId = "c"', None, "has no [jobs.<id>]"),
        (GOOD, "none", "has no profile 'none'; there are: test"),
        (GOOD.replace('name = "shop-jobs"', ""), None, "name: is required"),
        (GOOD.replace('"shop-jobs"', '"' + "x" * 129 + '"'), None, "line 1: name: should be at most 128 bytes"),
        (GOOD.replace('"shop"', "5"), None, "line 2: clientId: should be a string"),
        (GOOD.replace("triggers = false", "triggers = 0"), "test", "line 20 [profiles.test]: triggers: should be true"),
        (GOOD.replace("taskData = 0", "taskData = nan"), "test", "line 26 [profiles.test.jobs.report]: taskData:"),
        (GOOD.replace("taskData = 0", f"taskData = {2**64}"), "test", "beyond 64 bits"),
        (GOOD.replace("day = 1", "day = 2030-01-31"), None, "is a date or time without an offset"),
        (GOOD.replace("[jobs.report]", "[jobs]\nreport = 1\n[defaults.x]"), None, "[jobs]: report: should be a table"),
        ("defaults = 1\n" + GOOD.replace("[defaults]", "[profiles.a.defaults]"), None, "defaults: should be a table"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, profile: str | None, said: str) -> None:
    assert any(said in each for each in problems(text, profile)), problems(text, profile)


def test_a_text_that_looks_like_a_table_moves_no_line() -> None:
    text = GOOD.replace('taskData = "x"', 'taskData = """\n[jobs.other]\n[defaults]\npriority = 1\n"""\npriority = 0')
    (found,) = problems(text)
    assert found.startswith("line 20 [jobs.'by hand']: priority: ")


def test_an_offset_date_time_is_a_time() -> None:
    text = GOOD.replace('timeZone = "Europe/Berlin"', "start = 2030-01-31T09:00:00+01:00")
    assert read(text).jobs["report"]["trigger"]["start"] == "2030-01-31T09:00:00+01:00"


def test_a_trigger_whose_end_has_come_is_no_mistake_of_the_file_but_one_that_never_fires_is() -> None:
    over = GOOD.replace('timeZone = "Europe/Berlin"', "start = 2020-01-01T00:00:00Z, end = 2021-01-01T00:00:00Z")
    assert read(over).wanted("report", created_ms=1_500_000_000_000)["trigger"]["end"] == 1_609_459_200_000
    assert problems(over.replace("0 9 * * MON-FRI", "0 9 30 2 *"))


def test_a_rate_without_an_anchor_counts_from_the_jobs_creation() -> None:
    rate = GOOD.replace(
        'type = "cron", expression = "0 9 * * MON-FRI", timeZone = "Europe/Berlin"',
        'type = "fixed_rate", everyMs = 60000',
    )
    assert read(rate).wanted("report", created_ms=7)["trigger"]["anchor"] == 7
