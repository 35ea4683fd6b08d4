"""Servers: made, listed, shown, deleted; and refused without leaving anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.store.compute import instances
from tests.api.world import NOVA, booted, in_world, make_image, make_server, reason, sagas_of

SERVERS = f"{NOVA}/servers"


async def test_create_writes_one_intent_and_answers_202(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        nudged: list[str] = []
        world.store.on_commit(nudged.append)
        image_id = await make_image(world, token)
        server = {
            "name": "g 1",
            "imageRef": image_id,
            "flavorRef": "tiny",
            "networks": "none",
            "metadata": {"a": "b"},
            "description": "first",
            "tags": ["x"],
            "block_device_mapping_v2": [
                {
                    "uuid": image_id,
                    "source_type": "image",
                    "destination_type": "local",
                    "boot_index": 0,
                    "delete_on_termination": True,
                }
            ],
        }
        reply = await world.ask("POST", SERVERS, token=token, version="2.96", json={"server": server})
        assert reply.status_code == 202, reply.text
        body = reply.json()["server"]
        assert set(body) == {"id", "links", "OS-DCF:diskConfig", "security_groups"}
        assert reply.headers["location"] == body["links"][0]["href"]
        assert "sagas" in nudged
        (saga,) = await sagas_of(world, body["id"])
        assert saga["kind"] == "boot"
        assert saga["request_id"] == reply.headers["x-compute-request-id"]
        shown = (await world.ask("GET", f"{SERVERS}/{body['id']}", token=token, version="2.96")).json()["server"]
        assert shown["name"] == "g 1"
        assert shown["OS-EXT-SRV-ATTR:hostname"] == "g-1"
        assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("BUILD", "scheduling")
        assert shown["metadata"] == {"a": "b"}
        assert shown["tags"] == ["x"]
        assert shown["image"]["id"] == image_id
        assert shown["flavor"]["original_name"] == "tiny"


async def test_several_at_once_and_a_reservation(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token)
        server = {
            "name": "g",
            "imageRef": image_id,
            "flavorRef": "tiny",
            "networks": [],
            "min_count": 2,
            "return_reservation_id": True,
        }
        reply = await world.ask("POST", SERVERS, token=token, version="2.40", json={"server": server})
        reservation = reply.json()["reservation_id"]
        listed = await world.ask("GET", f"{SERVERS}?reservation_id={reservation}", token=token)
        assert sorted(s["name"] for s in listed.json()["servers"]) == ["g-1", "g-2"]


NOTHING = "00000000-0000-4000-8000-000000000000"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": " x"}, "space"),
    ({"name": "x" * 256}, "256"),
    ({"name": "a\0b"}, "nul"),
    ({"name": "a\nb"}, "printable"),
    ({"name": 7}, "text"),
    ({"flavorRef": "gigantic"}, "gigantic"),
    ({"flavorRef": True}, "flavorRef"),
    ({"imageRef": NOTHING}, "image"),
    ({"imageRef": ""}, "image"),
    ({"networks": "auto"}, "network"),
    ({"networks": [{"uuid": NOTHING}]}, "network"),
    ({"networks": 7}, "network"),
    ({"key_name": "mine"}, "key_name"),
    ({"user_data": "#!/bin/sh"}, "base64"),
    ({"user_data": "aGkh" * 16_384}, "65535"),
    ({"user_data": 7}, "base64"),
    ({"config_drive": "perhaps"}, "config_drive"),
    ({"personality": []}, "personality"),
    ({"block_device_mapping_v2": [{"source_type": "volume", "uuid": NOTHING}]}, "could not be found"),
    ({"security_groups": [{"name": "web"}]}, "security_groups"),
    ({"min_count": 3, "max_count": 2}, "min_count"),
    ({"min_count": 0}, "min_count"),
    ({"max_count": 10**9}, "max_count"),
    ({"metadata": {"a": 7}}, "metadata"),
    ({"metadata": {"": "x"}}, "metadata"),
    ({"metadata": []}, "metadata"),
    ({"tags": ["a,b"]}, "tags"),
    ({"tags": ["x"] * 51}, "tags"),
    ({"description": "x" * 256}, "description"),
    ({"hostname": "-"}, ""),
    ({"host": "nowhere"}, "nowhere"),
    ({"host": "a/b"}, "host"),
    ({"availability_zone": "nova:h1", "host": "h1"}, "twice"),
    ({"availability_zone": "a:b:c:d"}, "zone"),
    ({"colour": "blue"}, "colour"),
]


@pytest.mark.parametrize(("change", "word"), BAD)
async def test_a_bad_server_is_400_with_the_reason_and_not_made(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token)
        server = {"name": "g", "imageRef": image_id, "flavorRef": "tiny", "networks": "none", **change}
        version = "2.90" if "hostname" in change else "2.96"
        reply = await world.ask("POST", SERVERS, token=token, version=version, json={"server": server})
        assert reply.status_code == 400, reply.text
        assert word in reason(reply)
        assert "\n" not in reason(reply)
        assert (await world.ask("GET", SERVERS, token=token)).json()["servers"] == []


@pytest.mark.parametrize("body", [None, [], 7, {"server": []}, {}, {"server": {}}, {"server": {"name": "x"}, "x": 1}])
async def test_a_body_of_another_shape_is_400(tmp_path: Path, body: Any) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        reply = await world.ask("POST", SERVERS, token=token, version="2.96", json=body)
        assert reply.status_code == 400, reply.text


async def test_what_each_microversion_takes(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        base = {"name": "g", "imageRef": await make_image(world, token), "flavorRef": "tiny"}

        async def code(version: int, **more: Any) -> int:
            body = {"server": {**base, **more}}
            return (await world.ask("POST", SERVERS, token=token, version=f"2.{version}", json=body)).status_code

        assert await code(1) == 202
        assert await code(36) == 202
        assert await code(37) == 400  # networks is required from here on
        assert await code(36, networks="none") == 400
        assert await code(37, networks="none") == 202
        assert await code(18, description="x") == 400
        assert await code(19, description="x") == 202
        assert await code(51, networks="none", tags=["a"]) == 400
        assert await code(52, networks="none", tags=["a"]) == 202
        assert await code(56, networks="none", personality=[]) == 202
        assert await code(57, networks="none", personality=[]) == 400
        assert await code(73, networks="none", host="h1") == 400
        assert await code(74, networks="none", host="h1") == 202
        assert await code(74, networks="none", hypervisor_hostname="h2.lab") == 202
        assert await code(89, networks="none", hostname="web") == 400
        assert await code(90, networks="none", hostname="web") == 202
        assert await code(93, networks="none", hostname="web.example") == 400
        assert await code(94, networks="none", hostname="web.example") == 202


async def test_images_that_cannot_boot_and_flavors_too_small(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image = {"name": "q", "disk_format": "raw", "container_format": "bare"}
        queued = (await world.ask("POST", "/image/v2/images", token=token, json=image)).json()["id"]
        greedy = await make_image(world, token, "greedy", min_ram=1000)
        wide = await make_image(world, token, "wide", min_disk=5)
        for image_id, word in ((queued, "not active"), (greedy, "memory"), (wide, "disk")):
            server = {"name": "g", "imageRef": image_id, "flavorRef": "tiny", "networks": "none"}
            reply = await world.ask("POST", SERVERS, token=token, version="2.96", json={"server": server})
            assert reply.status_code == 400
            assert word in reason(reply)


async def test_emoji_names_are_fine(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        name = "🐑" * 255
        server_id = await make_server(world, token, await make_image(world, token), name)
        shown = (await world.ask("GET", f"{SERVERS}/{server_id}", token=token, version="2.96")).json()["server"]
        assert shown["name"] == name
        assert shown["OS-EXT-SRV-ATTR:hostname"].startswith("server-")
        found = await world.ask("GET", f"{SERVERS}?name=🐑", token=token)
        assert len(found.json()["servers"]) == 1


async def test_another_projects_server_is_a_404(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob, rita, admin = (
            await world.token("alice", "red"),
            await world.token("bob", "blue"),
            await world.token("rita", "red"),
            await world.token(),
        )
        image_id = await make_image(world, alice)
        server_id = await make_server(world, alice, image_id)
        path = f"{SERVERS}/{server_id}"
        for method, body in (("GET", None), ("DELETE", None), ("POST", {"os-stop": None})):
            where = path + ("/action" if method == "POST" else "")
            reply = await world.ask(method, where, token=bob, json=body)
            assert reply.status_code == 404
            assert reply.json()["itemNotFound"]["code"] == 404
        assert (await world.ask("GET", SERVERS, token=bob)).json()["servers"] == []
        assert (await world.ask("GET", f"{SERVERS}?all_tenants=1", token=bob)).status_code == 403
        assert len((await world.ask("GET", SERVERS, token=rita)).json()["servers"]) == 1
        assert (await world.ask("DELETE", path, token=rita)).status_code == 403
        assert (await world.ask("POST", f"{path}/action", token=rita, json={"os-stop": None})).status_code == 403
        server = {"name": "g", "imageRef": image_id, "flavorRef": "tiny"}
        assert (await world.ask("POST", SERVERS, token=rita, json={"server": server})).status_code == 403
        refused = await world.ask("POST", SERVERS, token=bob, json={"server": server})  # with her private image
        assert refused.status_code == 400
        at_host = {**server, "host": "h1", "networks": "none"}
        assert (
            await world.ask("POST", SERVERS, token=alice, version="2.96", json={"server": at_host})
        ).status_code == 403
        assert (await world.ask("GET", SERVERS, token=admin)).json()["servers"] == []
        assert len((await world.ask("GET", f"{SERVERS}?all_tenants=1", token=admin)).json()["servers"]) == 1
        assert (await world.ask("GET", path, token=admin)).status_code == 200
        (saga,) = await sagas_of(world, server_id)
        assert saga["kind"] == "boot"


async def test_delete_is_an_intent_and_idempotent(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await make_server(world, token, await make_image(world, token))
        path = f"{SERVERS}/{server_id}"
        for _ in range(2):
            reply = await world.ask("DELETE", path, token=token)
            assert reply.status_code == 204
            assert reply.content == b""
        assert [saga["kind"] for saga in await sagas_of(world, server_id)].count("delete") >= 1
        await world.store.run(instances.set_, server_id, deleted=True, vm_state="deleted", task_state=None)
        assert (await world.ask("GET", path, token=token)).status_code == 404
        assert (await world.ask("DELETE", path, token=token)).status_code == 404
        gone = (await world.ask("GET", f"{SERVERS}/detail?deleted=True", token=token)).json()["servers"]
        assert [server["status"] for server in gone] == ["DELETED"]
        alice = await world.token("alice", "red")
        assert (await world.ask("GET", f"{SERVERS}?deleted=True", token=alice)).json()["servers"] == []
        assert (await world.ask("GET", f"{SERVERS}?status=deleted", token=alice)).status_code == 403


async def test_lists_filter_sort_and_page(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token)
        ids = {name: await make_server(world, token, image_id, name) for name in ("web1", "web2", "db1")}
        await booted(world, ids["web1"], "h1")
        await booted(world, ids["web2"], "h2")

        async def names(query: str, version: str = "2.96") -> list[str]:
            reply = await world.ask("GET", f"{SERVERS}/detail?{query}", token=token, version=version)
            assert reply.status_code == 200, reply.text
            return [server["name"] for server in reply.json()["servers"]]

        assert await names("deleted=False") == ["db1", "web2", "web1"]
        assert await names("name=web") == ["web2", "web1"]
        assert await names("name=^web.$&sort_key=display_name&sort_dir=asc") == ["web1", "web2"]
        assert await names("name=%5Eb1") == []
        assert await names("name=WEB") == ["web2", "web1"]
        assert await names("name=^web1$") == ["web1"]
        assert await names("name=b.*1&sort_key=display_name&sort_dir=asc") == ["db1", "web1"]
        assert await names("name=web%25") == await names("name=w_b1") == []
        assert await names("sort_key=display_name&sort_key=display_name&sort_dir=asc&sort_dir=desc") == [
            "db1",
            "web1",
            "web2",
        ]
        twice = f"sort_key=uuid&sort_key=uuid&sort_key=created_at&marker={ids['db1']}"
        assert sorted([*await names(twice), *await names(twice + "&sort_dir=asc"), "db1"]) == sorted(ids)
        assert await names("status=ACTIVE") == ["web2", "web1"]
        assert await names("status=active&status=BUILD") == ["db1", "web2", "web1"]
        assert await names("status=nonsense", "2.37") == []
        assert await names("host=h2") == ["web2"]
        assert await names("image=" + image_id) == ["db1", "web2", "web1"]
        assert await names("flavor=small") == []
        assert await names("changes-since=2020-01-01T00:00:00Z") == ["db1", "web2", "web1"]
        assert await names("changes-since=2100-01-01T00:00:00Z") == []
        assert await names("limit=0") == []
        seen: list[str] = []
        reply = await world.ask("GET", f"{SERVERS}?limit=2", token=token)
        while True:
            seen += [server["name"] for server in reply.json()["servers"]]
            more = reply.json().get("servers_links")
            if not more:
                break
            reply = await world.ask("GET", more[0]["href"], token=token)
        assert seen == ["db1", "web2", "web1"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=many",
        "marker=nowhere",
        "name=%28",
        "name=" + "x" * 300,
        "status=nonsense",
        "sort_key=colour",
        "name=(a%2B)%2B$",
        "&".join(["sort_key=uuid"] * 60),
        "sort_key=created_at&sort_dir=up",
        "changes-since=yesterday",
        "all_tenants=perhaps",
        "metadata=x",
        "name=%00",
        "name=%ff",
        "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z",
    ],
)
async def test_a_bad_query_is_400_with_a_reason(tmp_path: Path, query: str) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        reply = await world.ask("GET", f"{SERVERS}?{query}", token=token, version="2.96")
        assert reply.status_code == 400, reply.text
        assert reason(reply)


async def test_flavors_are_made_shown_and_removed(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        path = f"{NOVA}/flavors"
        flavor = {
            "name": "mini",
            "id": None,
            "ram": 64,
            "vcpus": 1,
            "disk": 1,
            "swap": 0,
            "rxtx_factor": 1.0,
            "os-flavor-access:is_public": False,
        }
        made = await world.ask("POST", path, token=admin, version="2.61", json={"flavor": flavor})
        assert made.status_code == 200, made.text
        flavor_id = made.json()["flavor"]["id"]
        assert (await world.ask("GET", f"{path}/{flavor_id}", token=alice)).status_code == 404  # not public
        assert (await world.ask("GET", f"{path}/{flavor_id}", token=admin)).status_code == 200
        every = await world.ask("GET", f"{path}/detail?is_public=None", token=admin)
        assert {each["name"] for each in every.json()["flavors"]} == {"tiny", "small", "medium", "mini"}
        hers = await world.ask("GET", f"{path}/detail?is_public=None&minRam=500", token=alice)
        assert [each["name"] for each in hers.json()["flavors"]] == ["medium", "small"]
        assert (await world.ask("POST", path, token=admin, json={"flavor": flavor})).status_code == 409
        assert (await world.ask("POST", path, token=alice, json={"flavor": flavor})).status_code == 403
        for bad in (
            {"ram": 0},
            {"vcpus": "many"},
            {"disk": -1},
            {"name": " "},
            {"id": "a/b"},
            {"rxtx_factor": 0},
            {"colour": 1},
            {"ram": 2**40},
            {"ram": True},
        ):
            body = {"flavor": {**flavor, "name": "other", **bad}}
            assert (await world.ask("POST", path, token=admin, json=body)).status_code == 400, bad
        assert (await world.ask("DELETE", f"{path}/{flavor_id}", token=alice)).status_code == 403
        assert (await world.ask("DELETE", f"{path}/{flavor_id}", token=admin)).status_code == 202
        assert (await world.ask("DELETE", f"{path}/{flavor_id}", token=admin)).status_code == 404
