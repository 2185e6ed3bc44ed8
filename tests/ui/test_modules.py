"""The page's pure parts, in the browser that runs them."""

import json
from typing import Any, Final

import pytest

from tests.ui.conftest import Window

GAP: Final = "2027-03-28T02:30"
TWICE: Final = "2027-10-31T02:30"


async def result(window: Window, module: str, call: str) -> Any:
    """The value of a call of one of the page's modules, named `m`."""
    if "/ui/" not in window.page.url:
        await window.open("/")
    source = await window.page.get_attribute("script[type=module]", "src") or ""
    path = source.replace("app.js", module)
    return await window.page.evaluate(f"async () => {{ const m = await import({json.dumps(path)}); return {call}; }}")


async def test_a_wall_time_names_no_instant_one_or_two(window: Window) -> None:
    async def instants(wall: str, zone: str) -> Any:
        found = await result(window, "parts/time.js", f"m.instantsOf({json.dumps(wall)}, {json.dumps(zone)})")
        return found and [
            (await result(window, "parts/time.js", f"m.rfc3339({each}, {json.dumps(zone)})")) for each in found
        ]

    assert await instants("2027-01-31T12:00", "Europe/Berlin") == ["2027-01-31T12:00:00.000+01:00"]
    assert await instants(GAP, "Europe/Berlin") == []
    assert await instants(TWICE, "Europe/Berlin") == ["2027-10-31T02:30:00.000+02:00", "2027-10-31T02:30:00.000+01:00"]
    assert await instants("2027-10-03T02:15:00.5", "Australia/Lord_Howe") == []
    assert await instants("2027-06-01T00:00:00.25", "Asia/Kathmandu") == ["2027-06-01T00:00:00.250+05:45"]
    assert await instants("2027-02-30T00:00", "UTC") is None
    assert await instants("tomorrow", "UTC") is None


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h"),
        (3_661_000, "1 h 1 min"),
        (-273_600_000, "3 d 4 h"),
        (86_400_000 + 59_000, "1 d"),
    ],
)
async def test_a_length_of_time_has_its_two_largest_units(window: Window, ms: int, text: str) -> None:
    assert await result(window, "parts/time.js", f"m.lengthText({ms})") == text


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("30 2 * * *", "at 02:30, every day"),
        ("0 9 * * MON-FRI", "at 09:00, on Monday to Friday"),
        ("0 9,17 * * 1,3", "at 09:00 and 17:00, on Monday and Wednesday"),
        ("*/15 * * * *", "every 15 minutes"),
        ("0 * * * *", "every hour, on the hour"),
        ("* * * * *", "every minute"),
        ("0 6 1 * *", "at 06:00, on day 1 of the month"),
        ("0 6 L 3,6 *", "at 06:00, on the last day of the month in March and June"),
        # What plain words would not say exactly is left as it is written.
        ("0 6 1 * MON", None),
        ("5/7 3 * * *", None),
        ("0 0 9 * * *", None),
        ("0 6 * * FRI#2", None),
        ("*/7 * * * *", None),
        # Words that look right would hide what is wrong.
        ("0 25 * * *", None),
        ("61 * * * *", None),
        ("0 9 32 * *", None),
        ("0 9 * 13 *", None),
        ("0 9 * * 8", None),
        ("*/0 * * * *", None),
    ],
)
async def test_a_cron_expression_is_told_in_words_or_left_alone(
    window: Window, expression: str, words: str | None
) -> None:
    assert await result(window, "parts/trigger.js", f"m.cronWords({json.dumps(expression)})") == words


@pytest.mark.parametrize(
    "trigger",
    [
        {"type": "cron", "expression": "0 0 9 ? * 2-6", "timeZone": "Europe/Berlin", "dialect": "quartz"},
        {"type": "cron", "expression": "30 2 * * *", "timeZone": "UTC", "dst": {"gap": "skip"}, "onExcluded": "next"},
        {"type": "fixed_rate", "everyMs": 900_000, "anchor": 1_795_248_000_000},
        {"type": "fixed_delay", "delayMs": 5_000},
        {"type": "rrule", "rule": "FREQ=DAILY", "timeZone": "UTC", "dst": {"overlap": "both"}},
    ],
)
async def test_what_the_form_of_a_trigger_does_not_show_stays_as_it_is(window: Window, trigger: dict[str, Any]) -> None:
    call = f"m.triggerOf(m.triggerForm({json.dumps(trigger)}, 'UTC'))"
    assert await result(window, "parts/trigger.js", call) == trigger


async def test_a_trigger_of_another_kind_has_nothing_of_the_one_before(window: Window) -> None:
    before = {"type": "cron", "expression": "0 0 9 * * ?", "timeZone": "UTC", "dialect": "quartz"}
    call = f"m.triggerOf({{ ...m.triggerForm({json.dumps(before)}, 'UTC'), kind: 'fixed_rate' }})"
    assert await result(window, "parts/trigger.js", call) == {"type": "fixed_rate", "everyMs": 900_000}


async def test_a_part_of_json_is_the_text_that_was_sent(window: Window) -> None:
    text = '{"a": [1, {"taskData": 12345678901234567890.10}], "taskData" : {"x":1e400,"y":"}\\"]"} }'

    async def member(*path: str | int) -> Any:
        return await result(window, "parts/json.js", f"m.memberText({json.dumps(text)}, {json.dumps(path)})")

    assert await member("taskData") == '{"x":1e400,"y":"}\\"]"}'
    assert await member("a", 1, "taskData") == "12345678901234567890.10"
    assert await member("taskData", "y") == '"}\\"]"'
    assert await member("none") is None
    pretty = await result(window, "parts/json.js", f"m.pretty({json.dumps(text)})")
    assert "12345678901234567890.10" in pretty
    assert "1e400" in pretty


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (' {"a": [1, -0.5e+7, true, null, "\\u00e9\\n"], "b": {}}\n', None),
        ('{"a": x}', "see line 1, column 7."),
        ('{\n  "a": 1,\n  "b": 01\n}', "see line 3, column 9."),
        ('{"a": 1,}', "see line 1, column 9."),
        ('{"a" 1}', "see line 1, column 6."),
        ("[1 2]", "see line 1, column 4."),
        ("[1, 2}", "see line 1, column 6."),
        ('["\\x"]', "see line 1, column 2."),
        ("1 2", "see line 1, column 3."),
        ('{"a": [1', "it ends too early."),
        ("  ", "it is empty."),
    ],
)
async def test_the_place_is_told_at_which_a_text_is_no_json(window: Window, text: str, fault: str | None) -> None:
    said = await result(window, "parts/json.js", f"m.jsonFault({json.dumps(text)})")
    assert said == (fault and f"This is no JSON: {fault}")


async def test_a_text_for_the_shell_is_quoted(window: Window) -> None:
    text = await result(window, "parts/form.js", """m.quoted("it's $(rm -rf) `x`")""")
    assert text == "'it'\\''s $(rm -rf) `x`'"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"status": 200, "schedule": {}}, "cancelled"),
        ({"status": 409, "type": "urn:clockwork:problem:conflict", "reason": "in_flight"}, "in_flight"),
        ({"status": 403, "type": "urn:clockwork:problem:forbidden"}, "forbidden"),
        # The connection broke: the page does not know what was done.
        ({"status": 0, "title": "The node does not answer"}, "The node does not answer"),
        ({"status": 502}, "HTTP 502"),
    ],
)
async def test_an_item_of_many_was_done_only_if_the_service_says_so(window: Window, answer: Any, text: str) -> None:
    call = f"m.answerText({{did: 'cancelled'}}, {json.dumps(answer)})"
    assert await result(window, "parts/bulk.js", call) == text


async def test_what_is_fired_or_retried_is_the_version_that_was_seen(window: Window) -> None:
    stub = """(async () => {
        const sent = [], real = window.fetch;
        window.fetch = async (path, { body }) => {
            sent.push(JSON.parse(body).schedules);
            return new Response('{"results": []}', { headers: { "content-type": "application/json" } });
        };
        const row = { clientId: "shop", scheduleKey: "a", version: 3, status: "pending" };
        try {
            for (const action of [m.FIRE, m.RETRY, m.CANCEL]) await action.send([row]);
        } finally {
            window.fetch = real;
        }
        return sent;
    })()"""
    name = {"clientId": "shop", "scheduleKey": "a"}
    assert await result(window, "parts/actions.js", stub) == [
        [{**name, "ifVersion": 3}],
        [{**name, "ifVersion": 3}],
        [name],
    ]


async def test_a_header_may_have_any_name(window: Window) -> None:
    found = await result(window, "parts/form.js", "JSON.stringify(m.headersOf('__proto__: a\\nconstructor: b'))")
    assert found == '{"__proto__":"a","constructor":"b"}'


@pytest.mark.parametrize(
    "text",
    [
        '{"a":9007199254740993,"b":[-18446744073709551615,0],"c":1}',
        '{"a":9007199254740991,"b":0.5,"c":"9007199254740993"}',
    ],
)
async def test_an_integer_goes_through_the_page_as_it_was_written(window: Window, text: str) -> None:
    assert await result(window, "state/exact.js", f"m.jsonText(m.parseJson({json.dumps(text)}))") == text


async def test_only_an_integer_that_a_double_rounds_is_none_of_javascripts_numbers(window: Window) -> None:
    numbers = "[9007199254740992, 9007199254740991, -9007199254740993, 1e20, 0.12345678901234567]"
    kinds = await result(window, "state/exact.js", f"m.parseJson('{numbers}').map((each) => typeof each)")
    assert kinds == ["bigint", "number", "bigint", "number", "number"]


async def test_a_call_that_only_reads_has_nothing_read_past_shared_answers(window: Window) -> None:
    async def next_read_after(call: str) -> str | None:
        async with window.page.expect_request("**/clients") as asked:
            await result(window, "state/api.js", f"(await m.call({call}).catch(() => null), m.call('GET', '/clients'))")
        return await (await asked.value).header_value("cache-control")

    assert await next_read_after("'POST', '/schedules/get', {body: {schedules: []}}") == "max-age=0"
    assert await next_read_after("'POST', '/schedules/cancel', {body: {schedules: []}}") == "no-cache"
