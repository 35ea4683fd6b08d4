"""Whatever is asked, by whomever: an answer with a sentence, never a bug (500) and never the insides of the program."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from droveway.api.routes import ROUTES
from droveway.api.wiring import NetworkSettings
from tests.api.world import BASE, IMG, NOVA, V3, World, booted, make_image, make_server

pytestmark = pytest.mark.slow

EXAMPLES = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Fuzzed:
    """One world for all examples, its loop kept; and names of things that are there."""

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = self.run(self._made(directory))

    async def _made(self, directory: Path) -> World:
        world = World(directory, network=NetworkSettings(is_on=True))
        await world.seed()
        self.token = await world.token()
        self.member = await world.token("alice", "red")
        self.image = await make_image(world, self.token)
        self.server = await make_server(world, self.token, self.image)
        await booted(world, self.server)
        return world

    def run(self, story: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(story)

    async def admin(self) -> str:
        """A token of the admin's: an example may have ended the one before."""
        if await self.world.api.find_caller(self.token) is None:
            self.token = await self.world.token()
        return self.token

    def close(self) -> None:
        self.run(self.world.close())
        self.loop.close()

    def ask(self, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        """The status of the reply, asked as a server asks: with whatever bytes."""
        return int(self.run(self._ask(method, path, query, headers, body)))

    async def _ask(
        self, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> int:
        sent: list[Any] = []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
        }
        async with asyncio.timeout(30):
            await self.world.app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in sent[1:])
        assert b"Traceback" not in text
        status = int(sent[0]["status"])
        assert status != 500, (method, path, query, headers, body[:500], text)
        if status >= 400 and method != "HEAD":
            assert text, (method, path, status)
        return status


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    log = logging.getLogger("droveway.api")
    log.setLevel(logging.ERROR)
    made = Fuzzed(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()
    log.setLevel(logging.NOTSET)


# -- what may be asked ------------------------------------------------------------------------------------------------
ODD = st.sampled_from(
    [
        "%00",
        "%2F",
        "%2f%2e%2e",
        "%",
        "%zz",
        "%ff%fe",
        "%F0%9F%92%A9",
        "..",
        ".",
        "//",
        ";",
        "a" * 300,
        "-1",
        "0",
        "9" * 30,
        "None",
        "%0d%0a",
        "%25",
        "+",
        "*",
        "detail",
        "%ED%A0%80",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\0", "\x1b[31m", "x" * 300, "-1", "1e999", "null", "h1", "red", "admin", "tiny", "\ud7ff", "%"]
    ),
)
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.sampled_from([0, -1, 2**31, 2**63]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
WORDS = [
    "server",
    "name",
    "imageRef",
    "flavorRef",
    "networks",
    "flavor",
    "ram",
    "vcpus",
    "disk",
    "id",
    "aggregate",
    "metadata",
    "service",
    "status",
    "disabled_reason",
    "forced_down",
    "host",
    "binary",
    "auth",
    "identity",
    "methods",
    "password",
    "token",
    "user",
    "project",
    "domain",
    "scope",
    "os-migrateLive",
    "migrate",
    "reboot",
    "type",
    "tags",
    "os:scheduler_hints",
    "availability_zone",
    "add_host",
    "set_metadata",
    "extra_specs",
    "quota_set",
    "cores",
    "server_group",
    "policies",
    "policy",
    "placement",
    "allocations",
    "resources",
    "generation",
    "op",
    "path",
    "value",
    "min_count",
    "max_count",
    "disk_format",
    "container_format",
    "visibility",
    "block_migration",
    "limit",
    "marker",
]
BODIES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)
RAW = st.one_of(
    BODIES.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=100),
    st.tuples(st.integers(1, 1200), st.sampled_from([b'{"a":', b"["])).map(
        lambda told: told[1] * told[0] + b'"\\u0000"' + (b"}" if b"{" in told[1] else b"]") * told[0]
    ),
)
QUERY = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "limit",
                    "marker",
                    "sort_key",
                    "sort_dir",
                    "name",
                    "status",
                    "host",
                    "binary",
                    "all_tenants",
                    "changes-since",
                    "changes-before",
                    "deleted",
                    "size_min",
                    "sort",
                    "visibility",
                    "member_of",
                    "resources",
                    "required",
                    "in_tree",
                    "hypervisor_hostname_pattern",
                    "with_servers",
                    "detailed",
                    "start",
                    "end",
                    "type",
                    "state",
                    "all",
                    "reserved",
                    "flavor",
                    "image",
                    "ip",
                    "uuid",
                    "user_id",
                    "project_id",
                    "minDisk",
                    "minRam",
                    "is_public",
                    "group_policy",
                ]
            ),
            TEXTS,
        ),
        max_size=4,
    ).map(lambda pairs: "&".join(f"{n}={quote(v)}" for n, v in pairs).encode()),
)
HEADER = st.tuples(
    st.sampled_from(
        [
            b"openstack-api-version",
            b"x-openstack-nova-api-version",
            b"content-type",
            b"content-length",
            b"accept",
            b"x-subject-token",
            b"last-event-id",
            b"expect",
            b"range",
            b"host",
            b"x-auth-token",
        ]
    ),
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [
                b"compute 2.1",
                b"compute latest",
                b"compute 2.96",
                b"placement 1.39",
                b"volume 3.0",
                b"application/json",
                b"-1",
                b"application/openstack-images-v2.1-json-patch",
                b"application/octet-stream",
                b"bytes=0-",
                b"\xff",
                b"2.53",
            ]
        ),
    ),
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes]:
    """A route with its names filled in, mostly; `{image}` and `{server}` are put in when there are some."""
    route = draw(st.sampled_from(ROUTES))
    segments = []
    for segment in route.path.strip("/").split("/"):
        known = st.sampled_from(["@server", "@image", "h1", "h2", "tiny", "admin", "red", "nova", "1", "detail"])
        made = st.one_of(known, ODD, TEXTS.map(lambda text: quote(text, safe="")))
        segments.append(draw(made) if segment.startswith("{") or draw(st.integers(0, 40)) == 0 else segment)
    methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "ODD"])
    method = draw(st.sampled_from([route.method] * 9 + [""])) or draw(methods)
    headers = draw(st.lists(HEADER, max_size=3))
    version = draw(st.sampled_from([b"", b"compute 2.1", b"compute 2.53", b"compute latest", b"placement latest"]))
    if version:
        headers.append((b"openstack-api-version", version))
    return method, "/" + "/".join(segments), draw(QUERY), headers, draw(RAW)


def is_endless(method: str, path: str) -> bool:
    return path.endswith("/services/events")


def ask(fuzzed: Fuzzed, what: tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes], token: str) -> int:
    method, path, query, headers, body = what
    if is_endless(method, path):
        return 0
    path = path.replace("@server", fuzzed.server).replace("@image", fuzzed.image)
    if token:
        headers = [(name, value) for name, value in headers if name != b"x-auth-token"]
        headers.append((b"x-auth-token", token.encode()))
    return fuzzed.ask(method, path.encode("ascii"), query, headers, body)


@EXAMPLES
@given(what=asked())
def test_without_a_token(fuzzed: Fuzzed, what: Any) -> None:
    assert ask(fuzzed, what, "") not in (201, 202, 204)


@settings(EXAMPLES, max_examples=600)
@given(what=asked())
def test_with_the_admins_token(fuzzed: Fuzzed, what: Any) -> None:
    assert ask(fuzzed, what, fuzzed.run(fuzzed.admin())) < 600


@EXAMPLES
@given(what=asked())
def test_with_a_members_token(fuzzed: Fuzzed, what: Any) -> None:
    assert ask(fuzzed, what, fuzzed.member) < 600


@EXAMPLES
@given(path=st.lists(ODD, min_size=1, max_size=6).map("/".join), query=st.binary(max_size=40))
@example(path="compute/%00", query=b"")
def test_paths_that_are_none(fuzzed: Fuzzed, path: str, query: bytes) -> None:
    assert fuzzed.ask("GET", b"/" + path.encode("ascii"), query, [(b"x-auth-token", fuzzed.token.encode())], b"") >= 200


@pytest.mark.parametrize("depth", [10, 33, 100, 400, 700, 900, 990, 1000, 100_000])
@pytest.mark.parametrize("path", [f"{V3}/auth/tokens", f"{NOVA}/servers", f"{IMG}/images"])
def test_deep_json_is_400(fuzzed: Fuzzed, path: str, depth: int) -> None:
    for body in (b'{"a":' * depth + b'"\\u0000"' + b"}" * depth, b"[" * depth + b'"\\u0000"' + b"]" * depth):
        assert fuzzed.ask("POST", path.encode(), b"", [(b"x-auth-token", fuzzed.token.encode())], body) == 400


# -- headers of one name ----------------------------------------------------------------------------------------------
VERSION, OLD = "OpenStack-API-Version", "X-OpenStack-Nova-API-Version"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Auth-Token", "@")], 400),
        ([("Content-Type", "application/json"), ("Content-Type", "text/plain")], 400),
        ([(OLD, "2.1"), (OLD, "2.2")], 400),
        ([(VERSION, "compute 2.1"), (VERSION, "compute 2.5")], 400),
        ([(VERSION, "compute 2.5"), (VERSION, "compute 2.5")], 200),
        ([(VERSION, "compute 2.5"), (VERSION, "volume 3.1")], 200),
        ([(VERSION, "volume 3.1"), (VERSION, "compute 2.5")], 200),
        ([(VERSION, "volume 3.1, compute 2.5")], 200),
        ([("Accept", "text/plain"), ("Accept", "application/json")], 200),
    ],
)
def test_two_headers_of_one_name(fuzzed: Fuzzed, headers: list[tuple[str, str]], status: int) -> None:
    sent = [("X-Auth-Token", fuzzed.token), *((name, value.replace("@", fuzzed.token)) for name, value in headers)]
    reply = fuzzed.run(fuzzed.world.http.get(f"{BASE}{NOVA}/servers", headers=sent))
    assert reply.status_code == status, reply.text
    if status == 400:
        assert "more than once" in reply.text or "two versions of compute" in reply.text
    elif any("compute 2.5" in value for _, value in headers):
        assert reply.headers["openstack-api-version"] == "compute 2.5"
