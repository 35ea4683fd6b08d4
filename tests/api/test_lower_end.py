"""What clients ask of compute at 2.1, where they name no version, and of block storage because the catalog names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.api.compute.extensions import _BUILT
from droveway.api.volume.unbuilt import EMPTY
from droveway.domain.policy import Need
from tests.api.world import BASE, IMG, NOVA, RAW, in_world, make_image, make_server, reason

PROXIES = (
    ("os-floating-ips", "floating_ips"),
    ("os-floating-ip-pools", "floating_ip_pools"),
    ("os-networks", "networks"),
    ("os-tenant-networks", "networks"),
    ("os-security-groups", "security_groups"),
    ("os-agents", "agents"),
)


async def test_what_compute_once_had_of_networks_is_an_empty_list_until_35(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for path, name in PROXIES:
            for version in (None, "2.1", "2.35"):
                reply = await world.ask("GET", f"{NOVA}/{path}", token=token, version=version)
                assert (reply.status_code, reply.json()) == (200, {name: []}), path
            assert (await world.ask("GET", f"{NOVA}/{path}/x", token=token)).status_code == 404
            for version in ("2.36", "2.96"):
                assert (await world.ask("GET", f"{NOVA}/{path}", token=token, version=version)).status_code == 404
        alice = await world.token("alice", "red")
        assert (await world.ask("GET", f"{NOVA}/os-agents", token=alice)).status_code == 403
        assert (await world.ask("GET", f"{NOVA}/os-networks", token=alice)).json() == {"networks": []}


async def test_what_a_dashboard_asks_for_is_there_at_every_version(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        server_id = await make_server(world, token, await make_image(world, token))
        beneath = (
            ("os-volume_attachments", "volumeAttachments"),
            ("os-interface", "interfaceAttachments"),
            ("os-security-groups", "security_groups"),
        )
        for version in ("2.1", "2.96"):
            assert (await world.ask("GET", f"{NOVA}/os-keypairs", token=token, version=version)).json() == {
                "keypairs": []
            }
            for path, name in beneath:
                reply = await world.ask("GET", f"{NOVA}/servers/{server_id}/{path}", token=token, version=version)
                assert reply.json() == {name: []}
                other = await world.ask("GET", f"{NOVA}/servers/{server_id}/{path}", token=bob, version=version)
                assert other.status_code == 404
            found = (await world.ask("GET", f"{NOVA}/extensions", token=token, version=version)).json()["extensions"]
            assert [each["alias"] for each in found] == sorted(_BUILT)
        one = (await world.ask("GET", f"{NOVA}/extensions/os-simple-tenant-usage", token=token)).json()["extension"]
        assert set(one) == {"alias", "name", "description", "links", "namespace", "updated"}
        assert (await world.ask("GET", f"{NOVA}/extensions/os-shelve", token=token)).status_code == 404


async def test_doubled_slashes_are_one(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for path in (f"{NOVA}//limits", f"{BASE}/{NOVA}/limits/", f"{BASE}//compute//v2.1//limits//"):
            reply = await world.ask("GET", path, token=token)
            assert reply.status_code == 200, path
            assert "limits" in reply.json()
            assert "x-compute-request-id" in reply.headers
        assert (await world.ask("GET", f"{NOVA}/servers//x", token=token)).status_code == 404
        assert (await world.ask("GET", f"{NOVA}/flavors/a%2F%2Fb", token=token)).status_code == 404


async def test_images_as_compute_showed_them(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice, bob = await world.token(), await world.token("alice", "red"), await world.token("bob", "blue")
        first = await make_image(world, admin, "tiny", visibility="public", min_ram=64, min_disk=1, os_distro="x")
        await world.ask("POST", f"{IMG}/images", token=alice, json={"name": "empty"})

        async def get(path: str, token: str = alice, code: int = 200, version: str = "2.1") -> Any:
            reply = await world.ask("GET", f"{NOVA}/images{path}", token=token, version=version)
            assert reply.status_code == code, reply.text
            return reply.json()

        both = (await get("/detail"))["images"]
        assert [(each["name"], each["status"], each["progress"]) for each in both] == [
            ("empty", "SAVING", 25),
            ("tiny", "ACTIVE", 100),
        ]
        one = (await get(f"/{first}"))["image"]
        assert one == both[1]
        assert {name: one[name] for name in ("id", "minRam", "minDisk", "metadata", "OS-EXT-IMG-SIZE:size")} == {
            "id": first,
            "minRam": 64,
            "minDisk": 1,
            "metadata": {"os_distro": "x"},
            "OS-EXT-IMG-SIZE:size": len(RAW),
        }
        assert [link["href"] for link in one["links"]] == [
            f"{BASE}{NOVA}/images/{first}",
            f"{BASE}/compute/images/{first}",
            f"{BASE}{IMG}/images/{first}",
        ]
        assert set((await get(""))["images"][0]) == {"id", "name", "links"}
        for query, count in (
            ("name=tiny", 1),
            ("name=none", 0),
            ("status=ACTIVE", 1),
            ("status=saving", 1),
            ("status=DELETED", 0),
            ("minRam=64", 1),
            ("minDisk=2", 0),
            ("property-os_distro=x", 1),
            ("type=snapshot", 0),
            ("server=http://x/servers/y", 0),
            ("limit=0", 0),
            ("changes-since=2100-01-01T00:00:00Z", 0),
        ):
            assert len((await get(f"/detail?{query}"))["images"]) == count, query
        page = await get("?limit=1")
        following = (await world.ask("GET", page["images_links"][0]["href"], token=alice)).json()
        assert [each["name"] for each in page["images"] + following["images"]] == ["empty", "tiny"]
        await get("?marker=nowhere", code=400)
        await get(f"/{both[0]['id']}", bob, 404)
        await get("/nonsense", code=404)
        for path in ("", "/detail", f"/{first}"):
            await get(path, code=404, version="2.36")
        gone = await world.ask("DELETE", f"{NOVA}/images/{first}", token=alice)
        assert gone.status_code == 403
        assert "forbidden" in gone.json()
        assert (await world.ask("DELETE", f"{NOVA}/images/{first}", token=admin)).status_code == 204


async def test_metadata_of_images_until_38(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        image_id = await make_image(world, token, visibility="community", a="1")
        path = f"{NOVA}/images/{image_id}/metadata"

        async def ask(method: str, more: str = "", body: Any = None, code: int = 200, who: str = token) -> Any:
            reply = await world.ask(method, path + more, token=who, version="2.38", json=body)
            assert reply.status_code == code, reply.text
            return reply.json() if reply.content else None

        assert await ask("GET") == {"metadata": {"a": "1"}}
        assert await ask("POST", body={"metadata": {"b": "2"}}) == {"metadata": {"a": "1", "b": "2"}}
        assert await ask("PUT", "/a", {"meta": {"a": "3"}}) == {"meta": {"a": "3"}}
        assert await ask("GET", "/a") == {"meta": {"a": "3"}}
        assert await ask("DELETE", "/a", code=204) is None
        assert await ask("PUT", body={"metadata": {"c": "4"}}) == {"metadata": {"c": "4"}}
        for method, more, body, code in (
            ("GET", "/a", None, 404),
            ("DELETE", "/a", None, 404),
            ("PUT", "/a", {"meta": {"b": "1"}}, 400),
            ("POST", "", {"metadata": []}, 400),
            ("PUT", "", {"metadata": {"status": "active"}}, 403),
            ("PUT", "/name", {"meta": {"name": "x"}}, 403),
            ("PUT", "/os_hidden", {"meta": {"os_hidden": "false"}}, 403),
            ("POST", "", {"metadata": dict.fromkeys(map(str, range(129)), "")}, 413),
        ):
            await ask(method, more, body, code)
        await ask("PUT", body={"metadata": {}}, code=403, who=bob)
        assert (await world.ask("GET", path, token=token, version="2.39")).status_code == 404


@pytest.mark.parametrize("empty", EMPTY, ids=lambda empty: empty.path)
async def test_there_is_nothing_of_block_storage(tmp_path: Path, empty: Any) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        project = (await world.ask("GET", "/identity/v3/auth/projects", token=alice)).json()["projects"][0]["id"]

        async def code(path: str, token: str = alice, version: int = 71) -> int:
            headers = {"OpenStack-API-Version": f"volume 3.{version}"}
            reply = await world.ask("GET", f"/volume/v3/{path}", token=token, headers=headers)
            if reply.status_code == 200:
                assert reply.json() == {empty.name: []}
                assert reply.headers["openstack-api-version"] == f"volume 3.{version}"
            return reply.status_code

        for place in ("", f"{project}/"):
            assert await code(place + empty.path) == (403 if empty.need is Need.ADMIN else 200)
        assert await code(empty.path, admin) == 200
        assert await code(empty.path, admin, empty.since) == 200
        assert await code(empty.path, admin, 0) == (404 if empty.since else 200)
        assert await code(f"elsewhere/{empty.path}", admin) == 400


async def test_a_volume_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        body = {"volume": {"size": 1}}
        reply = await world.ask("POST", "/volume/v3/volumes", token=await world.token("alice", "red"), json=body)
        assert reply.status_code == 403
        assert reason(reply).startswith("There is no block storage here, so no volume can be made")
