"""What holds for every request: version documents, bounds, errors in each service's form, no bug told to a client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from droveway.api.http.microversions import MAXIMUM_TEXT
from droveway.api.http.pool import ThreadPool
from droveway.api.identity import passwords
from droveway.api.routes import ROUTES
from droveway.domain.faults import Busy
from droveway.domain.policy import Need, expand, refusal
from droveway.drivers.credentials.own_table import OwnTable
from tests.api.world import BASE, IMG, NOVA, V3, in_world, login, reason


async def test_version_documents_need_no_token(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:

        async def get(path: str, code: int) -> Any:
            reply = await world.http.get(path)
            assert reply.status_code == code
            return reply.json()

        for path in (NOVA, NOVA + "/"):
            version = (await get(path, 200))["version"]
            assert (version["id"], version["version"], version["min_version"]) == ("v2.1", MAXIMUM_TEXT, "2.1")
        assert (await get("/compute", 200))["versions"][0]["version"] == MAXIMUM_TEXT
        assert (await get("/identity", 300))["versions"]["values"][0]["id"].startswith("v3")
        assert (await get(V3, 200))["version"]["status"] == "stable"
        assert (await get("/image", 300))["versions"][0]["links"][0]["href"] == f"{BASE}/image/v2/"
        assert (await get("/image/versions", 200))["versions"]
        assert {each["type"] for each in (await get("/", 200))["services"]} == {
            "identity",
            "compute",
            "image",
            "placement",
            "block-storage",
            "volumev3",
        }


async def test_what_is_not_built_is_a_clean_404(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for path in ("/os-keypairs/x", "/os-cells", "/servers/x/os-volume_attachments", "/servers/x/tags", "/nothing"):
            reply = await world.ask("GET", NOVA + path, token=token)
            assert reply.status_code == 404
            assert set(reply.json()) == {"itemNotFound"}
        for path in ("volumes/x", "types/x", "clusters", "group_types/x", "nothing"):
            assert (await world.ask("GET", f"/volume/v3/{path}", token=token)).status_code == 404
        assert (await world.ask("GET", f"{V3}/OS-TRUST/trusts", token=token)).json()["error"]["code"] == 404
        wrong = await world.ask("PUT", f"{NOVA}/servers", token=token, json={})
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == "GET, POST"
        assert "badMethod" in wrong.json()


BODIES = [
    b"",
    b"{",
    b"nonsense",
    b'{"a":}',
    b"\xff\xfe",
    b'{"server": "\xff"}',
    b"[" * 100_000,
    b'{"a": NaN}',
    b"\0",
    b'{"server": {"name": "a\\u0000b"}}',
    b'{"a\\u0000": 1}',
    b'{"a": "\\ud800"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("path", [f"{NOVA}/servers", f"{IMG}/images", f"{V3}/auth/tokens"])
async def test_malformed_json_is_400_with_one_reason(tmp_path: Path, path: str, body: bytes) -> None:
    async with in_world(tmp_path) as world:
        reply = await world.ask("POST", path, token=await world.token(), content=body)
        assert reply.status_code == 400, reply.text
        assert reason(reply)
        assert "\n" not in reason(reply)
        assert "Traceback" not in reply.text


async def test_ten_mebibytes_of_json_are_413_declared_or_not(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        body = b'{"server": {"name": "' + b"x" * 10 * 1024 * 1024 + b'"}}'

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        for path in (f"{NOVA}/servers", f"{IMG}/images", f"{V3}/auth/tokens"):
            for content in (body, pieces()):
                reply = await world.ask("POST", path, token=token, content=content)
                assert reply.status_code == 413
                assert "1048576" in reason(reply)
        assert "overLimit" in (await world.ask("POST", f"{NOVA}/servers", token=token, content=body)).json()


async def test_nul_bytes_in_paths_and_queries_are_400(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for path in (
            f"{NOVA}/servers/a%00b",
            f"{NOVA}/servers?name=a%00b",
            f"{IMG}/images?name=%00",
            f"{V3}/users?name=%00",
        ):
            reply = await world.ask("GET", path, token=token)
            assert reply.status_code == 400
            assert "nul" in reason(reply)


async def test_every_reply_carries_its_request_id(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        seen = set()
        for path in ("/", f"{NOVA}/servers", f"{NOVA}/nothing", f"{IMG}/images", f"{V3}/users"):
            reply = await world.ask("GET", path, token=token)
            seen.add(reply.headers["x-openstack-request-id"])
            assert ("x-compute-request-id" in reply.headers) == path.startswith("/compute")
        assert len(seen) == 5


async def test_a_bug_is_500_with_a_reason_and_no_insides(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:

        async def broken(saga_id: str, timeout_s: float) -> tuple[bool, str]:
            raise ZeroDivisionError("the secret inside")

        token = await world.token()
        world.control.read_console = broken  # type: ignore[assignment]
        from tests.api.test_actions import act, running

        server_id = await running(world, token)
        reply = await act(world, token, server_id, {"os-getConsoleOutput": {}})
        assert reply.status_code == 500
        assert reply.headers["x-openstack-request-id"] in reason(reply)
        assert "secret" not in reply.text
        assert "Zero" not in reply.text


async def test_a_store_that_is_busy_is_503_with_retry_after(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()

        async def busy(*args: Any, **kwargs: Any) -> Any:
            raise Busy("1024 writes are waiting for the database; try again in a second")

        world.api.store.run = busy  # type: ignore[method-assign]
        body = {"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 0}}
        reply = await world.ask("POST", f"{NOVA}/flavors", token=token, json=body)
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert "serviceUnavailable" in reply.json()


async def test_a_full_hashing_pool_answers_503_and_recovers(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        small = ThreadPool("hashing", 1, 2)
        world.api.credentials = OwnTable(world.store, partial(passwords.matches, small))
        try:
            logins = [world.http.post(f"{V3}/auth/tokens", json=login("admin", "admin")) for _ in range(12)]
            codes = [reply.status_code for reply in await asyncio.gather(*logins)]
            assert set(codes) == {201, 503}
            assert codes.count(201) >= 3
            assert (await world.http.post(f"{V3}/auth/tokens", json=login("admin", "admin"))).status_code == 201
        finally:
            small.close()


async def test_the_pool_counts_work_whose_asker_has_gone() -> None:
    pool = ThreadPool("p", 1, 0)
    go = threading.Event()
    job = asyncio.ensure_future(pool.run(go.wait))
    await asyncio.sleep(0.01)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    with pytest.raises(Busy):
        await pool.run(int)
    go.set()
    while True:
        try:
            assert await pool.run(int, "7") == 7
            break
        except Busy:
            await asyncio.sleep(0.01)
    pool.close()


class Bears(NamedTuple):
    """A token of these roles in that project."""

    role_names: frozenset[str]
    project_id: str | None = None
    user_id: str = "u"
    domain_id: str | None = None
    is_system: bool = False


def test_roles_imply_what_they_should() -> None:
    assert expand(["admin"]) == {"admin", "manager", "member", "reader"}
    assert expand(["member"]) == {"member", "reader"}
    assert expand(["service"]) == {"service"}
    assert refusal(Need.READER, Bears(expand(["member"]), "red")) is None
    assert refusal(Need.MEMBER, Bears(expand(["reader"]), "red")) is not None
    assert refusal(Need.READER, Bears(expand(["admin"]))) is not None
    assert refusal(Need.TOKEN, Bears(frozenset())) is None


OF_ONESELF = (("POST", ""), ("PATCH", "/{id}"), ("DELETE", "/{id}"))  # keys: of another only by an administrator


def test_every_write_needs_more_than_reading() -> None:
    weak = [route for route in ROUTES if route.method != "GET" and route.need in (Need.PUBLIC, Need.TOKEN, Need.READER)]
    assert {(route.method, route.path) for route in weak} == {
        ("POST", f"{V3}/auth/tokens"),
        ("DELETE", f"{V3}/auth/tokens"),
        ("POST", f"{V3}/users/{{user_id}}/password"),  # needs the one that it was
        *((method, f"{V3}/credentials{path}") for method, path in OF_ONESELF),
        ("POST", f"{NOVA}/servers/{{server_id}}/action"),
        ("POST", "/volume/v3/volumes/{volume_id}/action"),  # each says for itself what it needs
        ("POST", "/volume/v3/{project_id}/volumes/{volume_id}/action"),
        ("POST", f"{NOVA}/os-keypairs"),  # one's own, whatever one may do in a project
        ("DELETE", f"{NOVA}/os-keypairs/{{keypair}}"),
        ("POST", "/droveway/v1/join"),  # needs a token of its own
        ("POST", "/droveway/v1/hosts/{host}/certificate"),  # needs the certificate of that host
        ("PUT", "/droveway/v1/image-data/{id}"),  # needs a ticket
    }


async def test_lifespan_clears_up_before_the_first_request(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        (world.images / ".upload-x-1").write_bytes(b"half")
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await world.app({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert not list(world.images.iterdir())


async def test_nothing_is_waited_for_where_a_request_has_no_body(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, sent = await world.token(), []
        scope = {"type": "http", "method": "GET", "path": f"{NOVA}/servers", "query_string": b""}

        async def receive() -> dict[str, Any]:
            raise AssertionError("there is no body")

        async def send(message: Any) -> None:
            sent.append(message)

        for length in ([], [(b"content-length", b"0")]):
            sent.clear()
            await world.app({**scope, "headers": [(b"x-auth-token", token.encode()), *length]}, receive, send)
            assert sent[0]["status"] == 200
