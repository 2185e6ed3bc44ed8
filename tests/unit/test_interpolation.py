"""Values of a run in the place of names in `taskData`: what is checked when a job is written, and what is sent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.jobs.interpolation import RunValues, check_interpolation, interpolated, longest_values
from clockwork.domain.schedule import DataForm
from clockwork.errors import InvalidInput
from tests.unit.cron_times import ms

AT = ms("2026-03-29T01:00")
RUN = RunValues(
    scheduled_at_ms=AT, previous_at_ms=AT - 3_600_000, run_id=f"s{AT}", job_id='night "ly" ${version}', version=7
)
FIRST_RUN = RunValues(scheduled_at_ms=AT + 5, previous_at_ms=None, run_id="s5", job_id="j", version=1)
NAMES = ("scheduledAt", "scheduledAtIso", "previousAt", "runId", "jobId", "version")


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def rendered(value: Any, run: RunValues = RUN) -> Any:
    return json.loads(interpolated(compact(value), DataForm.JSON, run))


def fields_refused(value: Any, *, bytes_max: int = 1_000_000) -> list[str]:
    with pytest.raises(InvalidInput) as wrong:
        check_interpolation(compact(value), DataForm.JSON, job_id="j", bytes_max=bytes_max)
    return [error.field for error in wrong.value.errors]


def test_a_string_that_is_one_name_becomes_its_value_with_its_type() -> None:
    assert rendered({name: f"${{{name}}}" for name in NAMES}) == {
        "scheduledAt": AT,
        "scheduledAtIso": "2026-03-29T01:00:00.000Z",
        "previousAt": AT - 3_600_000,
        "runId": f"s{AT}",
        "jobId": 'night "ly" ${version}',
        "version": 7,
    }
    assert rendered(["${previousAt}", "${scheduledAtIso}"], FIRST_RUN) == [None, "2026-03-29T01:00:00.005Z"]


def test_names_within_a_longer_string_are_written_out() -> None:
    assert rendered(["from ${previousAt} to ${scheduledAt}", {"a": [" ${version}"]}]) == [
        f"from {AT - 3_600_000} to {AT}",
        {"a": [" 7"]},
    ]
    assert rendered("since ${previousAt}.", FIRST_RUN) == "since ."


def test_what_was_put_in_is_not_read_again() -> None:
    assert rendered("${jobId}${version}") == 'night "ly" ${version}7'


def test_keys_and_values_without_a_name_stay_as_they_were() -> None:
    value = {"${scheduledAt}": [1, 1.5, None, True, "$", "$5", "{version}", "ä€𝄞", 18_446_744_073_709_551_615]}

    assert interpolated(compact(value), DataForm.JSON, RUN) == compact(value)
    assert rendered({**value, "x": "${version}"}) == {**value, "x": 7}


def test_a_doubled_dollar_stands_for_the_characters_of_a_name() -> None:
    assert rendered(["$${version}", "a $${ b", "$$${version}", "$$ ${version}"]) == [
        "${version}",
        "a ${ b",
        "$${version}",
        "$$ 7",
    ]


def test_task_data_that_is_one_string_is_written_out_as_its_bytes() -> None:
    assert interpolated(b"${scheduledAt}", DataForm.TEXT, RUN) == str(AT).encode()
    assert interpolated('{"job": "${jobId}" ü}'.encode(), DataForm.TEXT, FIRST_RUN) == '{"job": "j" ü}'.encode()


def test_bytes_are_sent_as_they_are_and_cannot_be_asked_to_be_more() -> None:
    assert interpolated(b"\xff${version}", DataForm.BASE64, RUN) == b"\xff${version}"
    with pytest.raises(InvalidInput) as wrong:
        check_interpolation(b"\xff", DataForm.BASE64, job_id="j", bytes_max=100)
    assert [error.field for error in wrong.value.errors] == ["interpolate"]


def test_every_unknown_name_is_refused_with_its_place() -> None:
    value = {
        "ok": ["${version}", "$${nothing}", "$ {nothing}"],
        "items": [{"text": "a ${schedulddAt} ${}"}, "${ version }"],
        "open": "${version",
        "${nothing}": 1,
    }

    assert fields_refused(value) == [
        "taskData.items.0.text",
        "taskData.items.0.text",
        "taskData.items.1",
        "taskData.open",
    ]
    assert fields_refused("${nothing}") == ["taskData"]


def test_few_of_many_errors_are_reported_and_none_repeats_a_long_name() -> None:
    with pytest.raises(InvalidInput) as wrong:
        check_interpolation(compact([f"${{{'x' * 5_000}}}"] * 1_000), DataForm.JSON, job_id="j", bytes_max=10**9)

    assert len(wrong.value.errors) == 20
    assert all(len(error.message) < 400 for error in wrong.value.errors)


def test_task_data_that_may_grow_beyond_its_limit_is_refused() -> None:
    value = ["${jobId}"] * 100
    check_interpolation(compact(value), DataForm.JSON, job_id="j" * 10, bytes_max=10_000)

    with pytest.raises(InvalidInput) as wrong:
        check_interpolation(compact(value), DataForm.JSON, job_id="j" * 512, bytes_max=10_000)

    assert [error.field for error in wrong.value.errors] == ["taskData"]


_texts = st.lists(st.sampled_from([*(f"${{{name}}}" for name in NAMES), "$", "$${", "}", "ä", '"', "\x00"])).map(
    "".join
)
_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        _texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_texts, inner, max_size=4)),
    max_leaves=10,
)


@given(value=_values, job_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_task_data_that_was_taken_is_always_sent_and_never_above_the_size_that_was_checked(
    value: Any, job_id: str
) -> None:
    data = compact(value)
    for bytes_max in (50, 200, 10_000):
        try:
            check_interpolation(data, DataForm.JSON, job_id=job_id, bytes_max=bytes_max)
        except InvalidInput:
            continue
        for run in (longest_values(job_id), FIRST_RUN):
            sent = interpolated(data, DataForm.JSON, run)
            assert len(sent) <= bytes_max
            json.loads(sent)
