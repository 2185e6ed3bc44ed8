"""Our signatures beside the library's."""

from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from clockwork.stores.dynamodb.signature import Identity, Signer

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def _library(identity: Identity, *, url: str, region: str, target: str, body: bytes, now_ms: int) -> dict[str, str]:
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target}
    request = AWSRequest("POST", url, headers=headers, data=body)
    with patch("botocore.auth.get_current_datetime") as now:
        now.return_value = datetime.fromtimestamp(now_ms // 1_000, UTC)
        SigV4Auth(Credentials(*identity), "dynamodb", region).add_auth(request)
    return dict(request.headers)


@given(
    st.builds(Identity, SECRETS, SECRETS, st.none() | SECRETS),
    st.sampled_from(["http://127.0.0.1:8000/", "https://dynamodb.eu-central-1.amazonaws.com/"]),
    st.sampled_from(["us-east-1", "eu-central-1"]),
    st.binary(max_size=200),
    st.integers(1_600_000_000_000, 4_000_000_000_000),
)
def test_a_request_is_signed_as_the_library_signs_it(
    identity: Identity, url: str, region: str, body: bytes, now_ms: int
) -> None:
    target = "DynamoDB_20120810.GetItem"
    signer = Signer(host=url.split("/")[2], region=region)

    for at_ms in (now_ms, now_ms + 1_000, now_ms + 86_400_000):  # the second one with the key of the first
        ours = signer.headers(identity, target=target, body=body, now_ms=at_ms)
        assert ours == _library(identity, url=url, region=region, target=target, body=body, now_ms=at_ms)


def test_who_signs_does_not_show_its_secrets() -> None:
    assert "hush" not in repr(Identity("id", "hush", "hush"))


@pytest.mark.parametrize("changed", [Identity("id", "other", None), Identity("id", "secret", "token")])
def test_new_credentials_sign_from_the_next_request_on(changed: Identity) -> None:
    signer = Signer(host="h", region="us-east-1")
    first = signer.headers(Identity("id", "secret", None), target="t", body=b"", now_ms=0)

    assert signer.headers(changed, target="t", body=b"", now_ms=0)["Authorization"] != first["Authorization"]
