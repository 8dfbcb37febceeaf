"""Signatures are those that Amazon's own library makes, for whatever is signed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore import auth as botocore_auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Theirs
from hypothesis import given
from hypothesis import strategies as st

from holdfast.s3.http import Address
from holdfast.s3.sign import NOTHING, Credentials, Signer, canonical, quoted

NOW = datetime(2026, 11, 20, 12, 30, 45, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
VALUES = st.text(st.sampled_from("ab ,=/é"), min_size=1, max_size=20).map(str.strip).filter(bool)


@given(
    key=TEXT,
    query=st.dictionaries(TEXT.filter(bool), TEXT, max_size=4),
    headers=st.dictionaries(st.sampled_from(["x-amz-meta-a", "content-type", "range"]), VALUES),
    body=st.binary(max_size=20),
    token=st.sampled_from(["", "token=="]),
)
def test_signatures_are_those_of_botocore(
    key: str, query: dict[str, str], headers: dict[str, str], body: bytes, token: str
) -> None:
    digest = hashlib.sha256(body).hexdigest() if body else NOTHING
    pairs = list(query.items())
    path = f"/bucket/{quoted(key)}"
    signer = Signer(lambda: Credentials("AKID", "SECRET", token), "ap-northeast-2")
    encoded = {name: value.encode() for name, value in headers.items()}
    ours = signer.signed("PUT", "host:9000", path, pairs, encoded, digest, NOW)

    url = f"http://host:9000{path}" + (f"?{canonical(pairs)}" if pairs else "")
    request = AWSRequest("PUT", url, data=body, headers=dict(headers))
    request.context["payload_signing_enabled"] = True
    signing = botocore_auth.S3SigV4Auth(
        Theirs("AKID", "SECRET", token or None), "s3", "ap-northeast-2"
    )
    with mock.patch.object(botocore_auth, "get_current_datetime", return_value=NOW):
        signing.add_auth(request)
    assert ours["authorization"].decode() == request.headers["Authorization"]


def test_secrets_are_not_shown() -> None:
    credentials = Credentials("AKID", "SECRET", "TOKEN")
    assert "SECRET" not in repr(credentials)
    assert "TOKEN" not in repr(credentials)


@pytest.mark.parametrize(
    ("address", "host", "path"),
    [
        (Address("b"), "s3.eu-west-1.amazonaws.com", "/b/a%20b/c"),
        (Address("b", "", virtual=True), "b.s3.eu-west-1.amazonaws.com", "/a%20b/c"),
        (Address("b", "http://localhost:9000"), "localhost:9000", "/b/a%20b/c"),
        (Address("b", "https://h/s3"), "h", "/s3/b/a%20b/c"),
        (Address("b", "https://h/s3", virtual=True), "b.h", "/s3/a%20b/c"),
    ],
)
def test_the_address_of_an_object(address: Address, host: str, path: str) -> None:
    assert address.host("eu-west-1") == host
    assert address.path("eu-west-1", "a b/c") == path
