"""What users change of a server without touching its guest: names, metadata, tags, locks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from droveway.store.compute import instances, quotas
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes
from droveway.store.schema import server_ports
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server

LOCKED = "2.73"


class Asking:
    """One server and who asks about it."""

    def __init__(self, world: World, server_id: str, token: str) -> None:
        self.world, self.server_id, self.token = world, server_id, token

    async def __call__(
        self, method: str, path: str = "", body: Any = None, code: int = 200, version: str = "2.96", token: str = ""
    ) -> Any:
        sent = {} if body is None else {"json": body}
        url = f"{NOVA}/servers/{self.server_id}{path}"
        reply = await self.world.ask(method, url, token=token or self.token, version=version, **sent)
        assert reply.status_code == code, (method, path, body, reply.status_code, reply.text)
        return reply.json() if reply.content else reply

    async def act(self, body: Any, code: int = 202, token: str = "", version: str = LOCKED) -> Any:
        return await self("POST", "/action", body, code, version, token)

    async def server(self, version: str = "2.96", token: str = "") -> Any:
        return (await self("GET", version=version, token=token))["server"]


async def running(world: World, user: str = "alice", project: str = "red", **more: Any) -> Asking:
    token = await world.token(user, project)
    server_id = await make_server(world, token, await make_image(world, token), **more)
    await booted(world, server_id)
    return Asking(world, server_id, token)


# -- metadata ---------------------------------------------------------------------------------------------------------
async def test_metadata_is_extended_replaced_and_removed_item_by_item(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world, metadata={"a": "1"})
        assert await ask("GET", "/metadata") == {"metadata": {"a": "1"}}
        assert await ask("POST", "/metadata", {"metadata": {"b": "2"}}) == {"metadata": {"a": "1", "b": "2"}}
        assert await ask("PUT", "/metadata", {"metadata": {"c": "3"}}) == {"metadata": {"c": "3"}}
        assert await ask("PUT", "/metadata/d", {"meta": {"d": "4"}}) == {"meta": {"d": "4"}}
        assert await ask("GET", "/metadata/d") == {"meta": {"d": "4"}}
        await ask("DELETE", "/metadata/d", code=204)
        await ask("DELETE", "/metadata/d", code=404)
        await ask("GET", "/metadata/d", code=404)
        assert (await ask.server())["metadata"] == {"c": "3"}
        assert await ask("PUT", "/metadata", {"metadata": {}}) == {"metadata": {}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/metadata", {"metadata": {"": "x"}}),
        ("POST", "/metadata", {"metadata": {"k" * 256: "x"}}),
        ("POST", "/metadata", {"metadata": {"k": "x" * 256}}),
        ("POST", "/metadata", {"metadata": {"k": None}}),
        ("POST", "/metadata", {"metadata": {"a\nb": "x"}}),
        ("POST", "/metadata", {"metadata": None}),
        ("POST", "/metadata", {"meta": {}}),
        ("POST", "/metadata", {"metadata": {}, "more": 1}),
        ("POST", "/metadata", {"metadata": {str(number): "" for number in range(10_000)}}),
        ("PUT", "/metadata/a", {"meta": {"b": "1"}}),
        ("PUT", "/metadata/a", {"meta": {"a": "1", "b": "1"}}),
        ("PUT", "/metadata/a", {"meta": {}}),
    ],
)
async def test_metadata_that_is_none_is_400(tmp_path: Path, method: str, path: str, body: Any) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world)
        await ask(method, path, body, code=400)
        assert (await ask.server())["metadata"] == {}


async def test_metadata_is_bounded_by_the_quota_and_may_shrink_below_a_lowered_one(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world, metadata={str(number): "" for number in range(4)})
        row = await world.store.read(instances.get, ask.server_id)
        scope = quotas.scope_of(row["project_id"])
        await world.store.run(quotas.set_, scope, {"metadata_items": 3})
        refused = await ask("POST", "/metadata", {"metadata": {"more": ""}}, code=403)
        assert "exceeds 3" in refused["forbidden"]["message"]
        await ask("POST", "/metadata", {"metadata": {"0": "changed"}})
        await ask("DELETE", "/metadata/1", code=204)
        await world.store.run(quotas.set_, scope, {"metadata_items": -1})
        for _ in range(2):
            await ask("POST", "/metadata", {"metadata": {f"x{number}": "" for number in range(1000)}})
        refused = await ask("POST", "/metadata", {"metadata": {f"y{number}": "" for number in range(1000)}}, code=403)
        assert "1024" in refused["forbidden"]["message"]


async def test_of_a_server_that_is_not_built_metadata_and_tags_stay(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        ask = Asking(world, await make_server(world, token, await make_image(world, token)), token)
        refused = await ask("POST", "/metadata", {"metadata": {"a": "1"}}, code=409)
        assert "building" in refused["conflictingRequest"]["message"]
        await ask("PUT", "/tags/a", code=409)
        await ask("PUT", "/tags", {"tags": ["a"]}, code=409)


async def test_a_guest_with_ports_is_told_of_what_changes(tmp_path: Path) -> None:
    """Its host gets a new plan; a server without ports has no place to ask, and nothing is sent for it."""
    async with in_world(tmp_path) as world:
        ask = await running(world)
        before = await world.store.read(changes.revision)
        await ask("POST", "/metadata", {"metadata": {"a": "1"}})
        assert await world.store.read(changes.revision) == before

        def give_port(tx: Tx) -> None:
            port = {"instance_id": ask.server_id, "port_id": "p", "place": 0, "is_made": True}
            tx.execute(insert(server_ports).values(**port))

        await world.store.run(give_port)
        for number, (method, path, body) in enumerate(
            [
                ("POST", "/metadata", {"metadata": {"a": "2"}}),
                ("PUT", "", {"server": {"name": "other"}}),
                ("PUT", "", {"server": {"hostname": "other"}}),
            ],
            1,
        ):
            await ask(method, path, body)
            assert await world.store.read(changes.revision) == before + number, path
        await ask("PUT", "/tags/a", code=201)
        await ask("PUT", "", {"server": {"description": "d"}})
        assert await world.store.read(changes.revision) == before + 3


# -- tags -------------------------------------------------------------------------------------------------------------
async def test_tags_are_set_one_by_one_and_all_at_once(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world)
        await ask("GET", "/tags", code=404, version="2.25")
        assert await ask("GET", "/tags", version="2.26") == {"tags": []}
        made = await ask("PUT", "/tags/blue", code=201)
        assert made.headers["location"].endswith(f"/compute/v2.1/servers/{ask.server_id}/tags/blue")
        await ask("PUT", "/tags/blue", code=204)
        await ask("PUT", "/tags/dark%20red", code=201)
        await ask("GET", "/tags/blue", code=204)
        assert (await ask.server())["tags"] == ["blue", "dark red"]
        await ask("DELETE", "/tags/blue", code=204)
        await ask("DELETE", "/tags/blue", code=404)
        await ask("GET", "/tags/blue", code=404)
        assert await ask("PUT", "/tags", {"tags": ["x", "y", "x"]}) == {"tags": ["x", "y"]}
        await ask("DELETE", "/tags", code=204)
        assert await ask("GET", "/tags") == {"tags": []}
        for bad in ("a%2Cb", "a%2Fb", "t" * 61):
            await ask("PUT", f"/tags/{bad}", code=400)
        for wrong in ({"tags": ["a,b"]}, {"tags": [""]}, {"tags": [str(n) for n in range(51)]}, {}, {"tags": None}):
            await ask("PUT", "/tags", wrong, code=400)
        await ask("PUT", "/tags", {"tags": [str(number) for number in range(50)]})
        await ask("PUT", "/tags/more", code=400)


# -- names ------------------------------------------------------------------------------------------------------------
async def test_put_changes_names_as_its_microversion_knows_them(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world)
        server = (await ask("PUT", "", {"server": {"name": "new"}}, version="2.1"))["server"]
        assert server["name"] == "new"
        assert "config_drive" not in server
        assert "OS-EXT-AZ:availability_zone" not in server
        whole = (await ask("PUT", "", {"server": {"name": "newer"}}, version="2.75"))["server"]
        shown = await ask.server("2.75")
        assert whole == shown
        await ask("PUT", "", {"server": {"description": "d"}}, code=400, version="2.18")
        assert (await ask("PUT", "", {"server": {"description": "d"}}, version="2.19"))["server"]["description"] == "d"
        assert (await ask("PUT", "", {"server": {"description": None}}))["server"]["description"] is None
        await ask("PUT", "", {"server": {"hostname": "h1"}}, code=400, version="2.89")
        await ask("PUT", "", {"server": {"hostname": "h1.example.org"}}, code=400, version="2.90")
        named = (await ask("PUT", "", {"server": {"hostname": "h1.example.org"}}, version="2.94"))["server"]
        assert named["OS-EXT-SRV-ATTR:hostname"] == "h1.example.org"
        reached = {"accessIPv4": "192.0.2.1", "accessIPv6": "2001:db8::1", "OS-DCF:diskConfig": "AUTO"}
        assert reached.items() <= (await ask("PUT", "", {"server": reached}))["server"].items()
        assert reached.items() <= (await ask.server("2.1")).items()
        assert (await ask("PUT", "", {"server": {}}))["server"]["name"] == "newer"


@pytest.mark.parametrize(
    "server",
    [
        {"name": ""},
        {"name": " x"},
        {"name": "a\nb"},
        {"name": "n" * 256},
        {"name": None},
        {"description": "d" * 256},
        {"hostname": "a b"},
        {"hostname": None},
        {"accessIPv4": "2001:db8::1"},
        {"accessIPv6": "192.0.2.1"},
        {"accessIPv4": "here"},
        {"OS-DCF:diskConfig": "auto"},
        {"flavorRef": "1"},
        {"metadata": {}},
    ],
)
async def test_put_of_what_is_none_is_400(tmp_path: Path, server: Any) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world)
        before = await ask.server()
        await ask("PUT", "", {"server": server}, code=400)
        assert await ask.server() == before


async def test_where_it_is_reached_may_be_said_at_create(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world, accessIPv4="192.0.2.7", **{"OS-DCF:diskConfig": "AUTO"})
        server = await ask.server("2.1")
        assert (server["accessIPv4"], server["accessIPv6"], server["OS-DCF:diskConfig"]) == ("192.0.2.7", "", "AUTO")


# -- locks ------------------------------------------------------------------------------------------------------------
CHANGES: list[tuple[str, str, Any]] = [
    ("DELETE", "", None),
    ("POST", "/action", {"os-stop": None}),
    ("POST", "/action", {"reboot": {"type": "HARD"}}),
    ("POST", "/metadata", {"metadata": {"a": "1"}}),
    ("PUT", "/metadata", {"metadata": {"a": "1"}}),
    ("PUT", "/metadata/a", {"meta": {"a": "1"}}),
    ("DELETE", "/metadata/a", None),
]


async def test_a_locked_server_is_changed_by_administrators_alone(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask, admin = await running(world, metadata={"a": "1"}), await world.token()
        await ask.act({"lock": {"locked_reason": "being counted"}})
        server = await ask.server()
        assert (server["locked"], server["locked_reason"]) == (True, "being counted")
        for method, path, body in CHANGES:
            refused = await ask(method, path, body, code=409)
            assert "is locked" in refused["conflictingRequest"]["message"], path
        await ask("PUT", "/tags/a", code=201)
        await ask("PUT", "", {"server": {"name": "renamed"}})
        await ask("POST", "/metadata", {"metadata": {"b": "2"}}, token=admin)
        await ask.act({"unlock": None})
        server = await ask.server()
        assert (server["locked"], server["locked_reason"]) == (False, None)
        await ask.act({"os-stop": None})


async def test_what_an_administrator_has_locked_its_users_do_not_unlock(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask, admin = await running(world), await world.token()
        rita = await world.token("rita", "red")
        await ask.act({"lock": None}, token=admin)
        refused = await ask.act({"unlock": None}, code=403)
        assert "administrator" in refused["forbidden"]["message"]
        await ask.act({"lock": {"locked_reason": "mine"}})  # as it was
        assert (await ask.server())["locked_reason"] is None
        await ask.act({"unlock": None}, code=403)
        await ask.act({"unlock": None}, token=admin)
        await ask.act({"unlock": None})
        await ask.act({"lock": None}, code=403, token=rita)
        await ask.act({"unlock": None}, code=403, token=rita)


async def test_an_administrator_takes_over_a_lock_of_the_owner(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask, admin = await running(world), await world.token()
        await ask.act({"lock": None})
        await ask.act({"lock": None}, token=admin)
        await ask.act({"unlock": None}, code=403)


async def test_the_reason_is_known_from_73_on(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask = await running(world)
        await ask.act({"lock": {"locked_reason": 5}}, version="2.72")
        assert (await ask.server())["locked_reason"] is None
        await ask.act({"unlock": None})
        for wrong in ({"locked_reason": ""}, {"locked_reason": "r" * 256}, {"reason": "x"}, {"locked_reason": 5}, "x"):
            await ask.act({"lock": wrong}, code=400)
        assert (await ask.server())["locked"] is False


async def test_locking_is_an_action_that_is_told(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        ask, admin = await running(world), await world.token()
        await ask.act({"lock": None}, token=admin)
        await ask.act({"unlock": None}, token=admin)
        told = (await ask("GET", "/os-instance-actions"))["instanceActions"]
        assert [each["action"] for each in told] == ["unlock", "lock", "create"]
        owner = await world.store.read(instances.get, ask.server_id)
        assert told[2]["user_id"] == owner["user_id"]
        assert told[0]["user_id"] not in (None, owner["user_id"])
        first = await ask("GET", "/os-instance-actions?limit=1")
        rest = await world.ask("GET", first["links"][0]["href"], token=ask.token, version="2.96")
        assert [each["action"] for each in rest.json()["instanceActions"]] == ["lock"]
        one = (await ask("GET", f"/os-instance-actions/{told[0]['request_id']}"))["instanceAction"]
        (event,) = one["events"]
        assert (event["event"], event["result"], event["hostId"]) == ("api_unlock", "Success", "")
