"""Flavors: their description, their extra specs, and who may see and use which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from tests.api.world import NOVA, World, in_world, make_image, make_server, sentence

FLAVORS = f"{NOVA}/flavors"
SPECS = f"{FLAVORS}/tiny/os-extra_specs"


async def project_of(world: World, name: str) -> str:
    def read(tx: Tx) -> str:
        found = accounts.find_project(tx, name=name)
        assert found is not None
        return str(found["id"])

    return await world.store.read(read)


async def make_flavor(world: World, admin: str, name: str, **more: Any) -> None:
    body = {"flavor": {"name": name, "id": name, "ram": 64, "vcpus": 1, "disk": 1, **more}}
    assert (await world.ask("POST", FLAVORS, token=admin, json=body)).status_code == 200


async def ids(world: World, token: str, query: str = "") -> set[str]:
    reply = await world.ask("GET", f"{FLAVORS}{query}", token=token)
    return {flavor["id"] for flavor in reply.json()["flavors"]}


async def act(
    world: World, token: str, flavor: str, name: str, project_id: Any, version: str = "2.96"
) -> httpx.Response:
    body = {name: {"tenant": project_id}}
    return await world.ask("POST", f"{FLAVORS}/{flavor}/action", token=token, version=version, json=body)


# -- description ------------------------------------------------------------------------------------------------------
async def test_only_the_description_changes(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()

        async def put(value: Any, version: str = "2.55", flavor: str = "tiny") -> httpx.Response:
            body = {"flavor": value}
            return await world.ask("PUT", f"{FLAVORS}/{flavor}", token=admin, version=version, json=body)

        changed = await put({"description": "small but ours"})
        assert changed.json()["flavor"]["description"] == "small but ours"
        assert "extra_specs" in (await put({"description": None}, "2.61")).json()["flavor"]
        assert (await put({"description": "x"}, "2.54")).status_code == 404
        assert (await put({"description": "x"}, flavor="none")).status_code == 404
        for wrong in ({}, {"description": 1}, {"description": "x" * 65536}, {"description": "x", "ram": 1}):
            assert (await put(wrong)).status_code == 400, str(wrong)[:50]
        path, body = f"{FLAVORS}/tiny", {"flavor": {"description": "mine"}}
        alice = await world.token("alice", "red")
        assert (await world.ask("PUT", path, token=alice, version="2.55", json=body)).status_code == 403


# -- extra specs ------------------------------------------------------------------------------------------------------
async def test_extra_specs_are_added_changed_and_removed(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        given = {"extra_specs": {"hw:numa_nodes": 1, "ssd": "true"}}
        added = await world.ask("POST", SPECS, token=admin, json=given)
        assert (added.status_code, added.json()["extra_specs"]) == (200, {"hw:numa_nodes": "1", "ssd": "true"})
        changed = await world.ask("PUT", f"{SPECS}/hw:numa_nodes", token=admin, json={"hw:numa_nodes": "2"})
        assert (changed.status_code, changed.json()) == (200, {"hw:numa_nodes": "2"})
        assert (await world.ask("GET", f"{SPECS}/hw:numa_nodes", token=alice)).json() == {"hw:numa_nodes": "2"}
        assert (await world.ask("GET", SPECS, token=alice)).json() == {
            "extra_specs": {"hw:numa_nodes": "2", "ssd": "true"}
        }
        shown = await world.ask("GET", f"{FLAVORS}/tiny", token=alice, version="2.61")
        assert shown.json()["flavor"]["extra_specs"]["ssd"] == "true"
        removed = await world.ask("DELETE", f"{SPECS}/ssd", token=admin)
        assert (removed.status_code, removed.content) == (200, b"")
        for method in ("GET", "DELETE"):
            reply = await world.ask(method, f"{SPECS}/ssd", token=admin)
            assert (reply.status_code, sentence(reply)) == (404, "Flavor tiny has no extra specs with key ssd.")
        assert (await world.ask("POST", SPECS, token=alice, json=given)).status_code == 403
        elsewhere = await world.ask("GET", f"{FLAVORS}/none/os-extra_specs", token=admin)
        assert (elsewhere.status_code, sentence(elsewhere)) == (404, "Flavor none could not be found.")


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ({"hw:numa_nods": "2"}, "hw:numa_nodes"),
        ({"hw:cpu_policy": "sometimes"}, "one of shared, dedicated"),
        ({"hw:cpu_polcy": "dedicated"}, "hw:cpu_policy"),
        ({"quota:cpu_share": "1"}, "quota:cpu_shares"),
        ({"a/b": "1"}, "a-z"),
        ({"k" * 256: "1"}, "255"),
        ({"key": "v" * 256}, "256 characters"),
        ({"key": None}, "not a text"),
        ({"key": ["a"]}, "not a text"),
        ({"key": True}, "not a text"),
        ([], "object"),
        ({f"k{n}": "1" for n in range(129)}, "128"),
    ],
)
async def test_extra_specs_that_mean_nothing_are_refused(tmp_path: Path, specs: Any, words: str) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        reply = await world.ask("POST", SPECS, token=admin, json={"extra_specs": specs})
        assert (reply.status_code, words in sentence(reply)) == (400, True), reply.text
        assert (await world.ask("GET", SPECS, token=admin)).json() == {"extra_specs": {}}


async def test_one_extra_spec_is_named_twice(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        for body in ({"b": "1"}, {"a": "1", "b": "2"}, {}, {"a": 1.5, "hw:nothing": "1"}):
            reply = await world.ask("PUT", f"{SPECS}/a", token=admin, json=body)
            assert reply.status_code == 400, body
        many = {"extra_specs": {f"k{n}": "1" for n in range(128)}}
        assert (await world.ask("POST", SPECS, token=admin, json=many)).status_code == 200
        reply = await world.ask("PUT", f"{SPECS}/a", token=admin, json={"a": "1"})
        assert (reply.status_code, "at most 128" in sentence(reply)) == (400, True)


# -- access -----------------------------------------------------------------------------------------------------------
async def test_a_private_flavor_is_there_for_those_who_may(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice, bob = await world.token(), await world.token("alice", "red"), await world.token("bob", "blue")
        red, blue = await project_of(world, "red"), await project_of(world, "blue")
        await make_flavor(world, admin, "own", **{"os-flavor-access:is_public": False})
        public = {"tiny", "small", "medium"}
        assert (
            await ids(world, alice) == public == await ids(world, admin) == await ids(world, admin, "?is_public=true")
        )
        assert await ids(world, admin, "?is_public=false") == {"own"}
        assert (
            await ids(world, admin, "?is_public=None") == public | {"own"} == await ids(world, admin, "?is_public=none")
        )
        assert await ids(world, alice, "?is_public=None") == public == await ids(world, alice, "?is_public=false")
        opened = await act(world, admin, "own", "addTenantAccess", red)
        assert (opened.status_code, opened.json()) == (200, {"flavor_access": [{"flavor_id": "own", "tenant_id": red}]})
        assert await ids(world, alice) == public | {"own"} == await ids(world, alice, "?minRam=0")
        assert await ids(world, bob) == public
        for path in ("", "/os-extra_specs", "/os-extra_specs/x"):
            assert (await world.ask("GET", f"{FLAVORS}/own{path}", token=bob)).status_code == 404
        assert (await world.ask("GET", f"{FLAVORS}/own", token=alice)).status_code == 200
        image = await make_image(world, alice)
        await make_server(world, alice, image, flavorRef="own")
        await act(world, admin, "own", "addTenantAccess", blue)
        listed = await world.ask("GET", f"{FLAVORS}/own/os-flavor-access", token=admin)
        assert {one["tenant_id"] for one in listed.json()["flavor_access"]} == {red, blue}
        closed = await act(world, admin, "own", "removeTenantAccess", red)
        assert closed.json() == {"flavor_access": [{"flavor_id": "own", "tenant_id": blue}]}
        server = {"name": "g", "imageRef": image, "flavorRef": "own"}
        refused = await world.ask("POST", f"{NOVA}/servers", token=alice, json={"server": server})
        assert (refused.status_code, sentence(refused)) == (400, "Flavor own could not be found.")


async def test_access_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        red = await project_of(world, "red")
        await make_flavor(world, admin, "own", **{"os-flavor-access:is_public": False})
        listed = await world.ask("GET", f"{FLAVORS}/tiny/os-flavor-access", token=admin)
        assert (listed.status_code, "public" in sentence(listed)) == (404, True)
        public = await act(world, admin, "tiny", "addTenantAccess", red, "2.7")
        assert (public.status_code, sentence(public)) == (409, "Can not add access to a public flavor.")
        assert (await act(world, admin, "tiny", "addTenantAccess", red, "2.6")).status_code == 200
        assert (await act(world, admin, "own", "addTenantAccess", red)).status_code == 200
        again = await act(world, admin, "own", "addTenantAccess", red)
        assert (again.status_code, "already exists" in sentence(again)) == (409, True)
        assert (await act(world, admin, "own", "removeTenantAccess", red)).status_code == 200
        absent = await act(world, admin, "own", "removeTenantAccess", red)
        assert (absent.status_code, "not found" in sentence(absent)) == (404, True)
        nobody = await act(world, admin, "own", "addTenantAccess", "nobody")
        assert (nobody.status_code, sentence(nobody)) == (400, "Project ID nobody is not a valid project.")
        assert (await act(world, admin, "none", "addTenantAccess", red)).status_code == 404
        assert (await act(world, alice, "own", "addTenantAccess", red)).status_code == 403
        for body in ({}, {"grow": {}}, {"addTenantAccess": {}}, {"addTenantAccess": {"tenant": 1}}, []):
            reply = await world.ask("POST", f"{FLAVORS}/own/action", token=admin, json=body)
            assert reply.status_code == 400, body


async def test_a_flavor_in_use_is_deleted_and_its_servers_keep_their_copy(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        await make_flavor(world, admin, "own", **{"os-flavor-access:is_public": False})
        await act(world, admin, "own", "addTenantAccess", await project_of(world, "red"))
        await world.ask("POST", f"{FLAVORS}/own/os-extra_specs", token=admin, json={"extra_specs": {"ssd": "true"}})
        server = await make_server(world, admin, await make_image(world, admin), flavorRef="own")
        assert (await world.ask("DELETE", f"{FLAVORS}/own", token=admin)).status_code == 202
        shown = (await world.ask("GET", f"{NOVA}/servers/{server}", token=admin, version="2.47")).json()["server"]
        assert (shown["flavor"]["original_name"], shown["flavor"]["extra_specs"]) == ("own", {"ssd": "true"})
        await make_flavor(world, admin, "own", **{"os-flavor-access:is_public": False})
        assert (await world.ask("GET", f"{FLAVORS}/own/os-flavor-access", token=admin)).json() == {"flavor_access": []}
