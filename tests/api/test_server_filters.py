"""Which servers a list tells of: by tags, locks, addresses and all that they say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances as table
from tests.api.test_server_networks import network, networked, post, wired
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server

TAGGED = {"g0": ["a"], "g1": ["a", "b"], "g2": ["A", 'q"a'], "g3": []}


async def names(world: World, token: str, query: str, version: str = "2.96") -> set[str]:
    reply = await world.ask("GET", f"{NOVA}/servers?{query}", token=token, version=version)
    assert reply.status_code == 200, (query, reply.text)
    return {server["name"] for server in reply.json()["servers"]}


async def fill(world: World, token: str) -> dict[str, str]:
    image_id = await make_image(world, token)
    return {name: await make_server(world, token, image_id, name, tags=tags) for name, tags in TAGGED.items()}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tags=a", {"g0", "g1"}),
        ("tags=a,b", {"g1"}),
        ("tags-any=b,A", {"g1", "g2"}),
        ("not-tags=a,b", {"g0", "g2", "g3"}),
        ("not-tags-any=a,b", {"g2", "g3"}),
        ("tags=A", {"g2"}),
        ("tags=none", set()),
        ("tags-any=a&not-tags-any=b", {"g0"}),
    ],
)
async def test_servers_are_found_by_their_tags(tmp_path: Path, query: str, found: set[str]) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        await fill(world, alice)
        assert await names(world, alice, query) == found
        assert await names(world, alice, query, "2.25") == set(TAGGED)


async def test_servers_are_found_by_what_they_say(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        ids = await fill(world, admin)

        def write(tx: Tx) -> None:
            for number, server_id in enumerate(ids.values()):
                values = {"key_name": f"k{number}", "power_state": number, "config_drive": number == 1}
                values |= {"locked": number == 2, "locked_by": "owner" if number == 2 else None}
                values |= {
                    "created_at_us": 1_700_000_000_000_000 + number * 1_500_000,
                    "access_ipv4": f"192.0.2.{number}",
                }
                tx.execute(update(table).where(table.c.id == server_id).values(**values))

        await world.store.run(write)
        for query, found in (
            ("key_name=k1", {"g1"}),
            ("key_name=K", set(TAGGED)),
            ("hostname=g2", {"g2"}),
            ("power_state=3", {"g3"}),
            ("config_drive=true", {"g1"}),
            ("locked=true", {"g2"}),
            ("locked=false", {"g0", "g1", "g3"}),
            ("locked_by=owner", {"g2"}),
            ("created_at=2023-11-14T22:13:21", {"g1"}),
            ("access_ip_v4=192.0.2.3", {"g3"}),
        ):
            assert await names(world, admin, query) == found, query
        for query in ("power_state=many", "config_drive=perhaps", "created_at=now", "key_name=(x", "kernel_id=x"):
            reply = await world.ask("GET", f"{NOVA}/servers?{query}", token=admin, version="2.96")
            assert reply.status_code == 400, query


async def test_others_than_administrators_look_for_less(tmp_path: Path) -> None:
    """What they may not look for is left out of their query, as with Nova."""
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        await fill(world, alice)
        for query, since in (("key_name=x", 83), ("power_state=3", 83), ("hostname=x", 90), ("launch_index=5", 10_000)):
            for version in (82, 83, 89, 90):
                expected = set() if version >= since else set(TAGGED)
                assert await names(world, alice, query, f"2.{version}") == expected, (query, version)


async def test_servers_are_found_by_their_addresses(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        red = await network(world, alice)
        for name, address in (("one", "10.1.0.11"), ("two", "10.1.0.12")):
            nics = [{"uuid": red, "fixed_ip": address}]
            reply = await post(world, alice, image, networks=nics, name=name)
            await wired(world, reply)
        assert await names(world, alice, "ip=10.1.0.1") == {"one", "two"}
        assert await names(world, alice, "ip=10.1.0.12") == {"two"}
        assert await names(world, alice, "ip=^10%5C.1%5C.0%5C.11$") == {"one"}
        assert await names(world, alice, "ip6=10") == set()


async def test_changes_tell_of_deleted_servers_too(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        ids = await fill(world, alice)
        await booted(world, ids["g0"])
        await world.store.run(instances.set_, ids["g1"], deleted=True, vm_state="deleted")
        everything = set(TAGGED)
        assert await names(world, alice, "changes-since=2020-01-01T00:00:00Z") == everything
        assert await names(world, alice, "changes-before=2100-01-01T00:00:00Z") == everything
        assert await names(world, alice, "changes-before=2100-01-01T00:00:00Z", "2.65") == everything - {"g1"}
        assert await names(world, alice, "deleted=true") == everything - {"g1"}
        assert await names(world, admin, "deleted=true&all_tenants=1") == {"g1"}
        changed = "all_tenants=1&changes-since=2020-01-01T00:00:00Z"
        assert await names(world, admin, changed) == everything
        assert await names(world, admin, f"{changed}&deleted=False") == everything - {"g1"}
        reply = await world.ask("GET", f"{NOVA}/servers/{ids['g1']}", token=admin)
        assert reply.status_code == 404
