"""The OpenAPI document, read by schemathesis: requests that it says are good, and requests that it says are not, of
every call. Whatever is sent, the answer is one of the statuses that clients know, with a sentence where it refuses.

By default a few of the calls, a few requests each; every call, and many of each, with --full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from droveway.api import openapi
from droveway.api.routes import ROUTES
from tests.api.test_fuzz import Fuzzed

pytestmark = pytest.mark.slow

EVERY = 24  # each so many-th call is asked by default
FEW, MANY = 2, 10  # requests of a call
METHODS = ("get", "put", "post", "delete", "patch")
DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.encoded(ROUTES))
CALLS = sorted((path, method) for path, item in DOCUMENT["paths"].items() for method in METHODS if method in item)
PATCHES = [f"application/openstack-images-v2.{minor}-json-patch" for minor in (0, 1)]
schemathesis.serializer.alias(PATCHES, "application/json")
HERE = ("/droveway/v1/services/events",)  # goes on for ever


def bounds(most: int) -> settings:
    return settings(
        max_examples=most,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    made = Fuzzed(tmp_path_factory.mktemp("document"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def document() -> Any:
    return schemathesis.openapi.from_dict(DOCUMENT)


def asked(fuzzed: Fuzzed, case: Any, token: str) -> tuple[int, Any]:
    """The status of that request, of something that is there where its path names a server or an image."""
    known = {"server_id": fuzzed.server, "id": fuzzed.image}
    case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
    made = requests.Request(**{**case.as_transport_kwargs(base_url="http://cloud.test"), "cookies": None}).prepare()
    path, _, query = (made.path_url or "/").partition("?")
    body = made.body if isinstance(made.body, bytes) else (made.body or "").encode()
    headers = {**made.headers, "X-Auth-Token": token}
    sent = [(name.lower().encode(), str(value).encode("latin-1", "replace")) for name, value in headers.items()]
    return fuzzed.ask(made.method or "GET", path.encode(), query.encode(), sent, body), made


@pytest.mark.parametrize("positive", [True, False], ids=["good", "bad"])
def test_each_call_answers_what_the_document_says_is_good_and_what_is_not(
    positive: bool, fuzzed: Fuzzed, document: Any, request: pytest.FixtureRequest
) -> None:
    is_whole = request.config.getoption("--full")
    most = MANY if is_whole else FEW
    mode = schemathesis.GenerationMode.POSITIVE if positive else schemathesis.GenerationMode.NEGATIVE
    # What has neither body nor members in its query takes anything: then nothing is bad.
    possible = CALLS if positive else [one for one in CALLS if "requestBody" in DOCUMENT["paths"][one[0]][one[1]]]
    calls = possible if is_whole else possible[:: EVERY if positive else EVERY // 2]
    statuses: set[int] = set()
    for path, method in calls:
        if path in HERE:
            continue
        operation = document[path][method]

        @bounds(most)
        @given(operation.as_strategy(generation_mode=mode))
        def look(case: Any) -> None:
            token = fuzzed.run(fuzzed.admin())
            status, made = asked(fuzzed, case, token)
            statuses.add(status)
            assert status < 500 or status in (503, 507), (made.method, made.url, made.body)

        try:
            look()
        except Unsatisfiable:  # any body will do
            assert not positive, (method, path)
    assert statuses - {404}, "something was answered otherwise than by nothing being there"
