"""What a creation says of where and how many: counts, hints, zones, hosts, image properties. All of it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import select, update

from droveway.domain.quota import NO_LIMITS, Quotas
from droveway.store.engine.transaction import Tx
from droveway.store.schema import hosts, instances
from tests.api.world import NOVA, World, in_world, make_image, make_server, people_and_flavors, sagas_of, sentence
from tests.control import world as control_world

A_SERVER = "5b0c9b3f-1a0e-4c53-8d57-3a40cbfd3b30"


async def create(
    world: World, token: str, image: str, *, hints: Any = None, name: str = "os:scheduler_hints", **more: Any
) -> httpx.Response:
    server = {"name": "g", "imageRef": image, "flavorRef": "tiny", "networks": "none", **more}
    body = {"server": server, **({} if hints is None else {name: hints})}
    return await world.ask("POST", f"{NOVA}/servers", token=token, version="2.96", json=body)


async def rows(world: World) -> list[dict[str, Any]]:
    def read(tx: Tx) -> list[dict[str, Any]]:
        return [dict(row) for row in tx.execute(select(instances).order_by(instances.c.number)).mappings()]

    return await world.store.read(read)


def limited(**limits: int) -> Quotas:
    return Quotas(**{**dict.fromkeys(NO_LIMITS.__struct_fields__, -1), **limits})


# -- how many ---------------------------------------------------------------------------------------------------------
async def test_as_many_as_the_quota_lets_in(tmp_path: Path) -> None:
    async with in_world(tmp_path, quotas=limited(instances=5, ram=4 * 128 - 1)) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        made = await create(world, alice, image, min_count=2, max_count=4, return_reservation_id=True)
        assert (made.status_code, set(made.json())) == (202, {"reservation_id"})
        found = await rows(world)
        assert [(row["name"], row["hostname"], row["launch_index"]) for row in found] == [
            ("g-1", "g-1", 0),
            ("g-2", "g-2", 1),
            ("g-3", "g-3", 2),
        ]
        assert {row["reservation_id"] for row in found} == {made.json()["reservation_id"]}
        for row in found:
            assert [saga["kind"] for saga in await sagas_of(world, row["id"])] == ["boot"]
        refused = await create(world, alice, image, min_count=3, max_count=4)
        assert refused.status_code == 403
        assert sentence(refused) == (
            "Quota exceeded for instances, ram: Requested 3-4, 512, but already used 3, 384 of 5, 511 instances, ram"
        )
        assert len(await rows(world)) == 3
        body = {"flavor": {"name": "nano", "id": "nano", "ram": 64, "vcpus": 1, "disk": 1}}
        assert (await world.ask("POST", f"{NOVA}/flavors", token=await world.token(), json=body)).status_code == 200
        last = await create(world, alice, image, max_count=4, flavorRef="nano")
        assert last.status_code == 202
        assert [row["name"] for row in await rows(world)][3:] == ["g"]  # one alone has no number


async def test_the_launch_index_is_shown(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        await make_server(world, admin, await make_image(world, admin), min_count=2)
        shown = await world.ask(
            "GET", f"{NOVA}/servers/detail?sort_key=display_name&sort_dir=asc", token=admin, version="2.3"
        )
        assert [server["OS-EXT-SRV-ATTR:launch_index"] for server in shown.json()["servers"]] == [0, 1]


async def test_one_hostname_is_for_one_server(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        many = await create(world, alice, image, hostname="h", max_count=2)
        assert (many.status_code, "single hostname" in sentence(many)) == (400, True)
        several = await create(world, alice, image, max_count=10, min_count=10)
        assert several.status_code == 202
        server = {"name": "n" * 254, "imageRef": image, "flavorRef": "tiny", "networks": "none", "max_count": 2}
        too_long = await world.ask("POST", f"{NOVA}/servers", token=alice, version="2.96", json={"server": server})
        assert (too_long.status_code, "256 characters" in sentence(too_long)) == (400, True)


# -- hints ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"])
async def test_hints_are_kept_as_they_were_given(tmp_path: Path, name: str) -> None:
    given = {
        "same_host": A_SERVER,
        "different_host": [A_SERVER, A_SERVER],
        "target_cell": "c1",
        "different_cell": ["c"],
        "reservation": "7f",
        "shape": {"of": ["mine"]},
    }
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        assert (await create(world, alice, image, hints=given, name=name)).status_code == 202
        await make_server(world, alice, image)
        one, two = await rows(world)
        assert (one["hints"], one["server_group_id"]) == (given, None)
        assert two["hints"] is None


async def test_the_group_of_a_hint_is_kept_beside_it(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        body = {"server_group": {"name": "g", "policy": "affinity"}}
        made = await world.ask("POST", f"{NOVA}/os-server-groups", token=alice, version="2.64", json=body)
        group = made.json()["server_group"]["id"]
        assert (await create(world, alice, image, hints={"group": group}, min_count=2)).status_code == 202
        assert (await create(world, alice, image, hints={"group": [group]})).status_code == 202
        assert [row["server_group_id"] for row in await rows(world)] == [group] * 3
        assert [row["hints"]["group"] for row in await rows(world)] == [group, group, [group]]


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        ({"group": "mine"}, "id of a server group"),
        ({"group": 3}, "id of a server group"),
        ({"group": [A_SERVER, A_SERVER]}, "id of a server group"),
        ({"group": A_SERVER}, f"Instance group {A_SERVER} could not be found."),
        ({"query": "['>=', '$free_ram_mb', 1024]"}, "not chosen by a query"),
        ({"build_near_host_ip": "10.0.0.1"}, "addresses"),
        ({"cidr": "/24"}, "addresses"),
        ({"same_host": "g1"}, "id of a server"),
        ({"different_host": [A_SERVER, 1]}, "id of a server"),
        ({"different_host": {}}, "id of a server"),
        ({"different_host": [A_SERVER] * 101}, "at most 100"),
        ({"mine": "x" * 20000}, "at most 16384"),
        ([], "object"),
        ("group", "object"),
    ],
)
async def test_hints_that_cannot_be_heeded_are_refused(tmp_path: Path, hints: Any, words: str) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        reply = await create(world, alice, await make_image(world, alice), hints=hints)
        assert (reply.status_code, words in sentence(reply)) == (400, True), reply.text
        assert await rows(world) == []


# -- zone and host ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"availability_zone": "mars"}, "The requested availability zone is not available"),
        ({"availability_zone": "mars:h1"}, "The requested availability zone is not available"),
        ({"availability_zone": "nova:h9"}, "Compute host h9 could not be found."),
        ({"host": "h9"}, "Compute host h9 could not be found."),
        ({"host": "h1.lab"}, "Compute host h1.lab could not be found."),
        ({"hypervisor_hostname": "h1"}, "Compute host h1 could not be found."),
        ({"hypervisor_hostname": "h%"}, "host name"),
        ({"hypervisor_hostname": "h_.lab"}, "Compute host h_.lab could not be found."),
        ({"host": "h1", "hypervisor_hostname": "h2.lab"}, "Compute host h1 with hypervisor h2.lab could not be found."),
    ],
)
async def test_where_nothing_is_nothing_is_made(tmp_path: Path, more: Any, words: str) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        reply = await create(world, admin, await make_image(world, admin), **more)
        assert (reply.status_code, words in sentence(reply)) == (400, True), reply.text


async def test_a_host_may_be_named_in_four_ways(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        image = await make_image(world, admin)
        await world.store.run(
            lambda tx: tx.execute(update(hosts).where(hosts.c.name == "h2").values(zone="az2")) and None
        )
        for more in (
            {"host": "h2"},
            {"hypervisor_hostname": "h2.lab"},
            {"host": "h2", "hypervisor_hostname": "h2.lab"},
            {"availability_zone": "az2:h2"},
            {"availability_zone": "az2::h2.lab"},
        ):
            made = await create(world, admin, image, **more)
            assert made.status_code == 202, made.text
            (saga,) = await sagas_of(world, made.json()["server"]["id"])
            assert saga["params"]["requested_host"] == "h2"
        assert [row["zone"] for row in await rows(world)] == [None, None, None, "az2", "az2"]
        alice = await world.token("alice", "red")
        assert (await create(world, alice, await make_image(world, alice), host="h2")).status_code == 403


# -- image and flavor -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("specs", "properties", "words"),
    [
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "hw_cpu_policy=dedicated"),
        ({"hw:numa_nodes": "2"}, {}, "1 vcpus cannot be spread over 2 NUMA nodes"),
        ({"hw:numa_nodes": "1"}, {"hw_numa_nodes": "2"}, "hw_numa_nodes"),
        ({}, {"hw_cpu_policy": "dedicated", "hw_machine_type": "q35"}, ""),
    ],
)
async def test_an_image_and_a_flavor_that_disagree(tmp_path: Path, specs: Any, properties: Any, words: str) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        path, body = f"{NOVA}/flavors/tiny/os-extra_specs", {"extra_specs": specs}
        assert (await world.ask("POST", path, token=admin, json=body)).status_code == 200
        reply = await create(world, admin, await make_image(world, admin, **properties))
        assert reply.status_code == (400 if words else 202), reply.text
        assert not words or words in sentence(reply)
        if not words:
            assert (await rows(world))[0]["flavor"]["extra_specs"] == specs


# -- with a control behind the API ------------------------------------------------------------------------------------
async def test_what_is_asked_for_is_what_placing_does(tmp_path: Path) -> None:
    """The rows as the API writes them, read by the boot of a real control with three simulated hosts."""
    async with control_world.world(hosts=("h1", "h2", "h3")) as behind:
        front = World(tmp_path, store=behind.store)
        await behind.store.run(people_and_flavors)
        admin = await front.token()
        image = await make_image(front, admin)

        async def placed(**more: Any) -> list[dict[str, Any]]:
            """The servers of that creation, once placing is over."""
            made = await create(front, admin, image, return_reservation_id=True, **more)
            assert made.status_code == 202, made.text
            await behind.quiet()
            shown = await front.ask("GET", f"{NOVA}/servers/detail?{urlencode(made.json())}", token=admin)
            return list(shown.json()["servers"])

        async def hosts_of(**more: Any) -> list[str]:
            return sorted(str(one["OS-EXT-SRV-ATTR:host"]) for one in await placed(**more))

        groups = {}
        for policy in ("affinity", "anti-affinity"):
            body = {"server_group": {"name": policy, "policy": policy}}
            reply = await front.ask("POST", f"{NOVA}/os-server-groups", token=admin, version="2.64", json=body)
            groups[policy] = {"group": reply.json()["server_group"]["id"]}
        assert await hosts_of(host="h2") == ["h2"]
        assert await hosts_of(hints=groups["anti-affinity"], min_count=3) == ["h1", "h2", "h3"]
        (one,) = await placed(hints=groups["affinity"], host="h3")
        assert await hosts_of(hints=groups["affinity"], min_count=2) == ["h3", "h3"]
        assert await hosts_of(hints={"same_host": one["id"]}) == ["h3"]
        assert "h3" not in await hosts_of(hints={"different_host": [one["id"]]}, min_count=2)
        for more, words in (
            ({"hints": groups["affinity"], "host": "h1"}, "h3"),
            ({"hints": groups["anti-affinity"]}, "anti-affinity"),
        ):
            (failed,) = await placed(**more)
            assert (failed["status"], failed["OS-EXT-SRV-ATTR:host"]) == ("ERROR", None)
            assert "No valid host was found" in failed["fault"]["message"]
            assert words in failed["fault"]["message"], failed["fault"]["message"]
        await front.close()
