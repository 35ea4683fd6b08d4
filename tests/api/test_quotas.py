"""Quotas and limits: what is shown at each microversion, who may change them, and that they hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from droveway.domain.quota import Quotas
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import quotas
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.identity import accounts
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, reason
from tests.store import databases

SETS = f"{NOVA}/os-quota-sets"
CLASSES = f"{NOVA}/os-quota-class-sets"
EVER = {"id", "instances", "cores", "ram", "metadata_items", "key_pairs"}
GROUPS = {"server_groups", "server_group_members"}
NETWORKS = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}
FILES = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
NOVAS = {
    "instances": 10,
    "cores": 20,
    "ram": 51200,
    "metadata_items": 128,
    "key_pairs": 100,
    "server_groups": 10,
    "server_group_members": 10,
}


async def project_of(world: World, name: str) -> str:
    def read(tx: Tx) -> str:
        found = accounts.find_project(tx, name=name)
        assert found is not None
        return str(found["id"])

    return await world.store.read(read)


async def put(world: World, token: str, path: str, body: Any, version: str = "2.96") -> httpx.Response:
    return await world.ask("PUT", path, token=token, version=version, json=body)


async def test_the_fields_follow_the_microversion(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, mine = await world.token(), await project_of(world, "admin")
        for minor in (1, 35, 36, 49, 50, 56, 57, 96):
            in_set = EVER | GROUPS | (NETWORKS if minor < 36 else set()) | (FILES if minor < 57 else set())
            in_class = EVER | (GROUPS if minor >= 50 else NETWORKS) | (FILES if minor < 57 else set())
            version = f"2.{minor}"
            for path in ("", "/defaults", "/detail"):
                shown = await world.ask("GET", f"{SETS}/{mine}{path}", token=admin, version=version)
                assert set(shown.json()["quota_set"]) == in_set, (minor, path)
            changed = await put(world, admin, f"{SETS}/{mine}", {"quota_set": {}}, version)
            assert set(changed.json()["quota_set"]) == in_set - {"id"}, minor
            shown = await world.ask("GET", f"{CLASSES}/default", token=admin, version=version)
            assert set(shown.json()["quota_class_set"]) == in_class, minor
            changed = await put(world, admin, f"{CLASSES}/default", {"quota_class_set": {}}, version)
            assert set(changed.json()["quota_class_set"]) == in_class - {"id"}, minor


async def test_limits_follow_the_microversion_and_tell_the_use(tmp_path: Path) -> None:
    networks = {
        "maxSecurityGroups",
        "maxSecurityGroupRules",
        "maxTotalFloatingIps",
        "totalFloatingIpsUsed",
        "totalSecurityGroupsUsed",
    }
    gone = ((36, networks), (39, {"maxImageMeta"}), (57, {"maxPersonality", "maxPersonalitySize"}))
    ever = {
        "maxServerMeta",
        "maxServerGroups",
        "maxServerGroupMembers",
        "maxTotalCores",
        "maxTotalInstances",
        "maxTotalKeypairs",
        "maxTotalRAMSize",
        "totalCoresUsed",
        "totalInstancesUsed",
        "totalRAMUsed",
        "totalServerGroupsUsed",
    }
    async with in_world(tmp_path, quotas=Quotas()) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        await make_server(world, alice, image, flavorRef="medium")
        for minor in (1, 35, 36, 38, 39, 56, 57, 96):
            reply = await world.ask("GET", f"{NOVA}/limits", token=alice, version=f"2.{minor}")
            absolute = reply.json()["limits"]["absolute"]
            assert set(absolute) == ever.union(*(names for since, names in gone if minor < since)), minor
        assert (absolute["totalInstancesUsed"], absolute["totalCoresUsed"], absolute["totalRAMUsed"]) == (1, 2, 1024)
        assert (absolute["maxTotalInstances"], absolute["maxServerMeta"]) == (10, 128)
        others = await world.ask("GET", f"{NOVA}/limits?tenant_id=other", token=alice)
        assert others.status_code == 403
        red = await project_of(world, "red")
        seen = await world.ask("GET", f"{NOVA}/limits?tenant_id={red}&reserved=1", token=await world.token())
        assert seen.json()["limits"]["absolute"]["totalInstancesUsed"] == 1


async def test_a_quota_is_shown_set_and_taken_back(tmp_path: Path) -> None:
    async with in_world(tmp_path, quotas=Quotas()) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        red = await project_of(world, "red")
        shown = (await world.ask("GET", f"{SETS}/{red}", token=alice, version="2.96")).json()["quota_set"]
        assert shown == {"id": red, **NOVAS}
        changed = await put(world, admin, f"{SETS}/{red}", {"quota_set": {"instances": "12", "ram": -1, "force": "no"}})
        assert changed.json()["quota_set"] == NOVAS | {"instances": 12, "ram": -1}
        assert (await world.ask("GET", f"{SETS}/{red}", token=alice)).json()["quota_set"]["instances"] == 12
        defaults = await world.ask("GET", f"{SETS}/{red}/defaults", token=alice)
        assert defaults.json()["quota_set"]["instances"] == 10
        detail = (await world.ask("GET", f"{SETS}/{red}/detail", token=alice)).json()["quota_set"]
        assert detail["instances"] == {"limit": 12, "in_use": 0, "reserved": 0}
        removed = await world.ask("DELETE", f"{SETS}/{red}", token=admin)
        assert (removed.status_code, removed.content) == (202, b"")
        assert (await world.ask("GET", f"{SETS}/{red}", token=alice)).json()["quota_set"]["instances"] == 10


async def test_the_class_changes_the_defaults_of_all(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, red = await world.token(), await project_of(world, "red")
        await put(world, admin, f"{SETS}/{red}", {"quota_set": {"cores": 5}})
        changed = await put(world, admin, f"{CLASSES}/default", {"quota_class_set": {"cores": 7, "instances": 3}})
        assert changed.json()["quota_class_set"]["cores"] == 7
        shown = (await world.ask("GET", f"{SETS}/{red}", token=admin)).json()["quota_set"]
        assert (shown["cores"], shown["instances"]) == (5, 3)
        for method in ("GET", "PUT"):
            reply = await world.ask(method, f"{CLASSES}/gold", token=admin, json={"quota_class_set": {}})
            assert (reply.status_code, "gold" in reason(reply)) == (404, True)


@pytest.mark.parametrize(
    ("given", "version", "words"),
    [
        ({"instances": 1}, "2.96", "greater than or equal to already used and reserved 2"),
        ({"server_groups": 0}, "2.96", "used and reserved 1"),
        ({"instances": -2}, "2.96", "-1"),
        ({"instances": 2**31}, "2.96", "2147483647"),
        ({"instances": "many"}, "2.96", "whole number"),
        ({"instances": None}, "2.96", "whole number"),
        ({"floppies": 1}, "2.96", "floppies"),
        ({"fixed_ips": 1}, "2.36", "fixed_ips"),
        ({"injected_files": 1}, "2.57", "injected_files"),
        ({"force": "perhaps"}, "2.96", "boolean"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, given: Any, version: str, words: str) -> None:
    async with in_world(tmp_path, quotas=Quotas()) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        red = await project_of(world, "red")
        image = await make_image(world, alice)
        await make_server(world, alice, image, min_count=2)
        group = {"server_group": {"name": "g", "policies": ["affinity"]}}
        assert (await world.ask("POST", f"{NOVA}/os-server-groups", token=alice, json=group)).status_code == 200
        body = {"quota_set": {"cores": 30, **given}}
        reply = await put(world, admin, f"{SETS}/{red}", body, version)
        assert (reply.status_code, words in reason(reply)) == (400, True), reply.text
        assert (await world.ask("GET", f"{SETS}/{red}", token=admin)).json()["quota_set"][
            "cores"
        ] == 20  # nothing is kept
        if given.get("instances") == 1:
            reply = await put(world, admin, f"{SETS}/{red}", {"quota_set": {**given, "force": True}}, version)
            assert reply.json()["quota_set"]["instances"] == 1


async def test_who_may_see_and_change(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice, bob = await world.token(), await world.token("alice", "red"), await world.token("bob", "blue")
        red = await project_of(world, "red")
        assert (await world.ask("GET", f"{SETS}/{red}", token=bob)).status_code == 403
        assert (await world.ask("GET", f"{SETS}/{red}/detail", token=bob)).status_code == 403
        assert (await put(world, alice, f"{SETS}/{red}", {"quota_set": {"cores": 99}})).status_code == 403
        assert (await world.ask("DELETE", f"{SETS}/{red}", token=alice)).status_code == 403
        assert (await world.ask("GET", f"{CLASSES}/default", token=alice)).status_code == 403
        for reply in (
            await world.ask("GET", f"{SETS}/nobody", token=admin),
            await put(world, admin, f"{SETS}/nobody", {"quota_set": {"cores": 1}}),
        ):
            assert (reply.status_code, "not a valid project" in reason(reply)) == (400, True)
        for method in ("GET", "PUT", "DELETE"):
            path = f"{SETS}/{red}?user_id=alice"
            reply = await world.ask(method, path, token=admin, json={"quota_set": {}})
            assert (reply.status_code, "user_id" in reason(reply)) == (400, True)


async def test_a_creation_beyond_the_quota_is_refused_with_the_numbers(tmp_path: Path) -> None:
    limited = Quotas(instances=3, cores=4, ram=900, metadata_items=2)
    async with in_world(tmp_path, quotas=limited) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        first = await make_server(world, alice, image)
        await make_server(world, alice, image)

        async def refused(**more: Any) -> str:
            server = {"name": "g", "imageRef": image, "flavorRef": "tiny", "networks": "none", **more}
            reply = await world.ask("POST", f"{NOVA}/servers", token=alice, version="2.96", json={"server": server})
            assert reply.status_code == 403, reply.text
            return reason(reply)

        assert await refused(max_count=4, min_count=2) == (
            "Quota exceeded for cores, instances: Requested 4, 2-4, but already used 2, 2 of 4, 3 cores, instances"
        )
        assert "Quota exceeded for ram: Requested 1024, but already used 256 of 900 ram" in await refused(
            flavorRef="medium"
        )
        await make_server(world, alice, image)
        assert await refused() == "Quota exceeded for instances: Requested 1, but already used 3 of 3 instances"
        assert await refused(metadata={"a": "1", "b": "2", "c": "3"}) == "Maximum number of metadata items exceeds 2"
        await make_server(
            world, await world.token("bob", "blue"), await make_image(world, await world.token("bob", "blue"))
        )
        await booted(world, first)  # what has failed or runs counts until it is deleted
        await refused()


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_fifty_clients_at_once_get_what_is_left_and_no_more(tmp_path: Path, kind: str) -> None:
    store = DiskStore(databases.fresh(kind, tmp_path), SystemClock(), SystemNames())
    world = World(tmp_path, store=store, quotas=Quotas(instances=17, cores=-1))
    await world.seed()
    alice = await world.token("alice", "red")
    image = await make_image(world, alice)
    server = {"name": "g", "imageRef": image, "flavorRef": "tiny", "min_count": 1, "max_count": 2}

    async def client() -> httpx.Response:
        return await world.ask("POST", f"{NOVA}/servers", token=alice, json={"server": server})

    replies = await asyncio.gather(*(client() for _ in range(50)))
    assert sorted(reply.status_code for reply in replies) == [202] * 9 + [403] * 41
    assert (await store.read(quotas.usage, await project_of(world, "red"))).instances == 17
    await world.close()
