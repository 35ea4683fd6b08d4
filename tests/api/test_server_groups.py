"""Server groups: what is shown at each microversion, whose they are, and their members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from droveway.domain.quota import NO_LIMITS, Quotas
from droveway.store.compute import instances
from tests.api.world import NOVA, World, in_world, make_image, make_server, sentence

GROUPS = f"{NOVA}/os-server-groups"
HARD, SOFT = ("affinity", "anti-affinity"), ("soft-affinity", "soft-anti-affinity")


async def post(world: World, token: str, group: Any, version: str = "2.64") -> httpx.Response:
    return await world.ask("POST", GROUPS, token=token, version=version, json={"server_group": group})


async def make_group(world: World, token: str, policy: str = "affinity", **more: Any) -> str:
    reply = await post(world, token, {"name": "g", "policy": policy, **more})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["server_group"]["id"])


async def member(world: World, token: str, image: str, group: str, **more: Any) -> httpx.Response:
    server = {"name": "m", "imageRef": image, "flavorRef": "tiny", "networks": "none", **more}
    body = {"server": server, "os:scheduler_hints": {"group": group}}
    return await world.ask("POST", f"{NOVA}/servers", token=token, version="2.96", json=body)


async def test_the_fields_follow_the_microversion(tmp_path: Path) -> None:
    old, new = {"id", "name", "policies", "members", "metadata"}, {"id", "name", "policy", "rules", "members"}
    owner = {"project_id", "user_id"}
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        for minor in (1, 12, 13, 15, 63, 64, 96):
            is_new = minor >= 64
            given = {"name": "g", **({"policy": "affinity"} if is_new else {"policies": ["affinity"]})}
            made = (await post(world, alice, given, f"2.{minor}")).json()["server_group"]
            fields = (new if is_new else old) | (owner if minor >= 13 else set())
            assert set(made) == fields, minor
            assert (made["policy"], made["rules"]) == ("affinity", {}) if is_new else made["policies"] == ["affinity"]
            shown = await world.ask("GET", f"{GROUPS}/{made['id']}", token=alice, version=f"2.{minor}")
            listed = await world.ask("GET", GROUPS, token=alice, version=f"2.{minor}")
            assert shown.json()["server_group"] == made == listed.json()["server_groups"][-1]


@pytest.mark.parametrize(
    ("group", "version", "words"),
    [
        ({"name": "g", "policies": ["soft-affinity"]}, "2.14", "affinity, anti-affinity."),
        ({"name": "g", "policies": ["affinity", "anti-affinity"]}, "2.63", "one policy"),
        ({"name": "g", "policies": []}, "2.1", "one policy"),
        ({"name": "g", "policies": "affinity"}, "2.1", "one policy"),
        ({"name": "g", "policies": [1]}, "2.1", "one of"),
        ({"name": "g"}, "2.1", "policies"),
        ({"name": "g"}, "2.64", "policy"),
        ({"name": "g", "policy": "affinity"}, "2.63", "policy"),
        ({"name": "g", "policies": ["affinity"]}, "2.64", "policies"),
        ({"name": "g", "policy": "legacy"}, "2.64", "one of"),
        ({"name": "g", "policy": ["affinity"]}, "2.64", "one of"),
        ({"policy": "affinity"}, "2.64", "name"),
        ({"name": "", "policy": "affinity"}, "2.64", "name"),
        ({"name": "x" * 256, "policy": "affinity"}, "2.64", "name"),
        ({"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}}, "2.64", "Only anti-affinity"),
        ({"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}}, "2.64", "max_server_per_host"),
        ({"name": "g", "policy": "anti-affinity", "rules": {"most": 1}}, "2.64", "most"),
        ({"name": "g", "policy": "anti-affinity", "rules": 3}, "2.64", "rules"),
        ([], "2.64", "object"),
    ],
)
async def test_what_makes_no_sense_is_refused(tmp_path: Path, group: Any, version: str, words: str) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        reply = await post(world, alice, group, version)
        assert (reply.status_code, words in sentence(reply)) == (400, True), reply.text
        assert (await world.ask("GET", GROUPS, token=alice)).json() == {"server_groups": []}


async def test_every_policy_and_its_rule(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        for policy in (*HARD, *SOFT):
            assert (await post(world, alice, {"name": policy, "policies": [policy]}, "2.15")).status_code == 200
            assert (await post(world, alice, {"name": policy, "policy": policy, "rules": {}})).status_code == 200
        ruled = await post(
            world, alice, {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": "3"}}
        )
        assert ruled.json()["server_group"]["rules"] == {"max_server_per_host": 3}


async def test_a_group_belongs_to_its_project(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice, bob = await world.token(), await world.token("alice", "red"), await world.token("bob", "blue")
        reader = await world.token("rita", "red")
        group = await make_group(world, alice)
        for token in (bob, reader, admin, alice):
            seen = await world.ask("GET", f"{GROUPS}/{group}", token=token)
            assert seen.status_code == (404 if token == bob else 200)
        assert f"Instance group {group} could not be found." == sentence(
            await world.ask("DELETE", f"{GROUPS}/{group}", token=bob)
        )
        assert (await post(world, reader, {"name": "g", "policy": "affinity"})).status_code == 403
        assert (await world.ask("DELETE", f"{GROUPS}/{group}", token=reader)).status_code == 403
        assert (await world.ask("GET", GROUPS, token=bob)).json() == {"server_groups": []}
        assert (await world.ask("GET", GROUPS, token=admin)).json() == {"server_groups": []}
        everybody = await world.ask("GET", f"{GROUPS}?all_projects=True", token=admin)
        assert [one["id"] for one in everybody.json()["server_groups"]] == [group]
        own = await world.ask("GET", f"{GROUPS}?all_projects", token=bob)
        assert own.json() == {"server_groups": []}
        others = await member(world, bob, await make_image(world, bob), group)
        assert (others.status_code, sentence(others)) == (400, f"Instance group {group} could not be found.")


async def test_pages_of_groups(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        made = [await make_group(world, alice, name=str(number)) for number in range(5)]

        async def page(query: str) -> list[str]:
            reply = await world.ask("GET", f"{GROUPS}?{query}", token=alice)
            return [one["id"] for one in reply.json()["server_groups"]]

        assert await page("") == made
        assert await page("limit=2&offset=1") == made[1:3]
        assert await page("limit=0") == made
        assert await page(f"limit=2&marker={made[2]}") == made[3:]  # as the SDK goes on
        bob = await world.token("bob", "blue")
        theirs = await make_group(world, bob)
        for wrong in ("limit=-1", "offset=x", "marker=x", f"marker={theirs}"):
            assert (await world.ask("GET", f"{GROUPS}?{wrong}", token=alice)).status_code == 400
        unknown = await world.ask("GET", f"{GROUPS}?colour=red", token=alice, version="2.75")
        assert unknown.status_code == 400


async def test_members_are_the_living_servers(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image, group = await make_image(world, alice), await make_group(world, alice, "anti-affinity")
        one, two = [(await member(world, alice, image, group)).json()["server"]["id"] for _ in range(2)]
        alone = await make_server(world, alice, image)
        shown = (await world.ask("GET", f"{GROUPS}/{group}", token=alice)).json()["server_group"]
        assert shown["members"] == [one, two]
        for server, groups in ((one, [group]), (alone, [])):
            seen = await world.ask("GET", f"{NOVA}/servers/{server}", token=alice, version="2.71")
            assert seen.json()["server"]["server_groups"] == groups
            earlier = await world.ask("GET", f"{NOVA}/servers/{server}", token=alice, version="2.70")
            assert "server_groups" not in earlier.json()["server"]
        await world.store.run(instances.set_, one, deleted=True)
        listed = (await world.ask("GET", GROUPS, token=alice)).json()["server_groups"]
        assert listed[0]["members"] == [two]
        gone = await world.ask("DELETE", f"{GROUPS}/{group}", token=alice)
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await world.ask("GET", f"{GROUPS}/{group}", token=alice)).status_code == 404
        left = (await world.ask("GET", f"{NOVA}/servers/{two}", token=alice, version="2.71")).json()["server"]
        assert (left["status"], left["server_groups"]) == ("BUILD", [])


async def test_quotas_of_groups_and_members(tmp_path: Path) -> None:
    limited = Quotas(
        **{**dict.fromkeys(NO_LIMITS.__struct_fields__, -1), "server_groups": 1, "server_group_members": 3}
    )
    async with in_world(tmp_path, quotas=limited) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        group = await make_group(world, alice)
        refused = await post(world, alice, {"name": "g", "policy": "affinity"})
        assert (refused.status_code, "too many server groups" in sentence(refused)) == (403, True)
        await make_group(world, bob)
        image = await make_image(world, alice)
        assert (await member(world, alice, image, group, min_count=2)).status_code == 202
        many = await member(world, alice, image, group, min_count=2)
        assert (many.status_code, "too many servers in group" in sentence(many)) == (403, True)
        assert (await member(world, alice, image, group)).status_code == 202
        assert (await world.ask("DELETE", f"{GROUPS}/{group}", token=alice)).status_code == 204
        await make_group(world, alice)
