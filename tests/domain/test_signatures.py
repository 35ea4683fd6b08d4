"""Signatures are those of keystoneclient's own signer, whatever is signed."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keystoneclient.contrib.ec2.utils import Ec2Signer

from droveway.domain import signatures
from droveway.domain.signatures import NotSigned, SignedRequest

SECRET = "a secret of forty characters, more or less"
words = st.text("abcXYZ019 -_~./:?&=+%ü€", max_size=12)
pairs = st.dictionaries(st.text("abcXYZ-_.", min_size=1, max_size=8), words, max_size=6)


def right(request: SignedRequest) -> str:
    """As the signer of OpenStack's clients has it."""
    asked: dict[str, Any] = msgspec.to_builtins(request)
    return str(Ec2Signer(SECRET).generate(asked))


@settings(max_examples=60, deadline=None)
@given(pairs, words, st.sampled_from(["GET", "POST"]))
def test_version_2(params: dict[str, str], path: str, verb: str) -> None:
    request = SignedRequest("cloud.example:8773", verb, f"/{path}", {**params, "SignatureVersion": "2"}, {})
    found = signatures.of_request(SECRET, request)
    assert found[0] == right(request)
    assert found[1] == right(msgspec.structs.replace(request, host="cloud.example"))


@settings(max_examples=60, deadline=None)
@given(pairs, words, st.sampled_from(["GET", "POST", "put"]), st.booleans(), st.sampled_from(["", "Boto/2.9.2 x"]))
def test_version_4(params: dict[str, str], path: str, verb: str, in_query: bool, agent: str) -> None:
    day, signed = "20261201", "host;x-amz-date;user-agent;missing"
    credential = f"AK/{day}/here/ec2/aws4_request"
    headers = {"Host": "cloud.example:8773", "User-Agent": agent}
    if in_query:
        said = {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": credential, "X-Amz-SignedHeaders": signed}
        params = {**params, **said, "X-Amz-Date": f"{day}T000000Z"}
    else:
        headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed},Signature=x"
        headers["X-Amz-Date"] = f"{day}T000000Z"
    body_hash = hashlib.sha256(b"").hexdigest()
    request = SignedRequest("cloud.example:8773", verb, f"/{path}", params, headers, body_hash)
    assert signatures.of_request(SECRET, request)[0] == right(request)
    assert signatures.of_request("another", request)[0] != right(request)


@pytest.mark.parametrize(
    ("params", "headers", "says"),
    [
        ({}, {}, "how it is signed"),
        ({"SignatureVersion": "1"}, {}, "version 1"),
        ({}, {"Authorization": "AWS4-HMAC-SHA256 Credential=a/b"}, "credential"),
        ({}, {"Authorization": "AWS4-HMAC-SHA256"}, "credential"),
        (
            {},
            {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20261201/r/s/aws4_request", "X-Amz-Date": "20261130T"},
            "another day",
        ),
    ],
)
def test_what_is_not_signed_is_told_by_its_part(params: dict[str, str], headers: dict[str, str], says: str) -> None:
    with pytest.raises(NotSigned, match=says):
        signatures.of_request(SECRET, SignedRequest("h", "GET", "/", params, headers))


def test_times() -> None:
    for text in ("20261201T041500Z", "2026-12-01T04:15:00Z", "2026-12-01T04:15:00.000Z", "2026-12-01T04:15:00"):
        params = {"SignatureVersion": "2", "Timestamp": text}
        at = signatures.signed_at(SignedRequest("h", "GET", "/", params, {}))
        assert at is not None and at.isoformat() == "2026-12-01T04:15:00+00:00"
    assert signatures.signed_at(SignedRequest("h", "GET", "/", {}, {})) is None
    with pytest.raises(NotSigned):
        signatures.signed_at(SignedRequest("h", "GET", "/", {}, {"X-Amz-Date": "yesterday"}))


def test_texts_of_s3() -> None:
    """The example of Amazon's documentation of the older form, and the shape of version 4."""
    text = b"GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/awsexamplebucket1/photos/puppy.jpg"
    assert signatures.of_text("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", text) == "qgk2+6Sv9/oM7G3qLEjTH1a1l1g="
    digest = hashlib.sha256(b"").hexdigest()
    new = f"AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n{digest}"
    assert len(base64.b16decode(signatures.of_text(SECRET, new.encode()), casefold=True)) == 32
    for wrong in ("AWS4-HMAC-SHA256", new + "\nmore", new.replace("s3", "ec2"), new.replace("aws4_request", "x")):
        with pytest.raises(NotSigned):
            signatures.of_text(SECRET, wrong.encode())
    # AWS's own example of version 4: GET of test.txt in examplebucket
    example = (
        "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n"
        "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972"
    )
    assert signatures.of_text("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", example.encode()) == (
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_one_of_them() -> None:
    assert signatures.is_one_of("b", ("a", "b")) and not signatures.is_one_of("c", ("a", "b"))
    assert not signatures.is_one_of("", ())
