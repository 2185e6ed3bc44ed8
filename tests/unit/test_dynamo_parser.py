"""Attributes as they come from the wire, and as the client library would have given them."""

import base64
import json

import botocore.session
import pytest
from aiobotocore.parsers import AioJSONParser
from hypothesis import given
from hypothesis import strategies as st

from clockwork.adapters.dynamo_parser import AttributesAsTheyAre, attribute

WIRE = st.recursive(
    st.one_of(
        st.text().map(lambda text: {"S": text}),
        st.integers().map(lambda number: {"N": str(number)}),
        st.booleans().map(lambda value: {"BOOL": value}),
        st.just({"NULL": True}),
        st.binary().map(lambda data: {"B": base64.b64encode(data).decode()}),
        st.lists(st.text(min_size=1), min_size=1).map(lambda texts: {"SS": texts}),
        st.lists(st.binary(), min_size=1).map(lambda many: {"BS": [base64.b64encode(one).decode() for one in many]}),
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.text(), inner, max_size=4).map(lambda members: {"M": members}),
        st.lists(inner, max_size=4).map(lambda members: {"L": members}),
    ),
    max_leaves=12,
)


QUERY_SHAPE = botocore.session.get_session().get_service_model("dynamodb").operation_model("Query").output_shape


@given(items=st.lists(st.dictionaries(st.text(min_size=1), WIRE, max_size=5), max_size=3))
async def test_a_page_is_parsed_as_the_library_parses_it(items: list[dict[str, object]]) -> None:
    answer = {"status_code": 200, "headers": {}, "body": json.dumps({"Items": items, "Count": len(items)}).encode()}
    assert QUERY_SHAPE is not None
    ours = AttributesAsTheyAre().create_parser("json")
    assert await ours.parse(answer, QUERY_SHAPE) == await AioJSONParser().parse(answer, QUERY_SHAPE)


def test_what_is_no_attribute_is_refused() -> None:
    with pytest.raises(ValueError, match="not an attribute"):
        attribute({"X": "1"})
