"""The examples of the OpenAPI document are what the service answers today."""

import json

from tests.unit.openapi_recording import FILE, record


async def test_the_examples_are_todays_answers() -> None:
    # Out of date? `python -m tests.unit.openapi_recording` renews the file.
    assert await record() == json.loads(FILE.read_bytes())
