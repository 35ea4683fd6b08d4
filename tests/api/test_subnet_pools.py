"""Subnet pools: what one may be, and the ranges that subnets get of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.domain.network import pools
from droveway.domain.network.pools import Pool
from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import SubnetAllocationError
from tests.api.network_world import change, get, make, networked, refused, send
from tests.api.world import World


async def subnet(world: World, token: str, network: str, version: int = 4, **more: Any) -> Any:
    return await make(world, token, "subnets", network_id=network, ip_version=version, **more)


async def test_subnets_get_ranges_of_their_pool_and_give_them_back(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        given = {"prefixes": ["10.1.0.0/16", "10.0.0.0/16"], "default_prefixlen": 24, "min_prefixlen": "20"}
        pool = await make(world, alice, "subnetpools", name="p", tags=["a"], **given)
        assert (pool["prefixes"], pool["ip_version"], pool["tags"]) == (["10.0.0.0/15"], 4, ["a"])
        lengths = [pool[f"{name}_prefixlen"] for name in ("min", "default", "max")]
        assert lengths == ["20", "24", "32"] and (pool["default_quota"], pool["is_default"]) == (None, False)
        networks = [(await make(world, alice, "networks", name=f"n{number}"))["id"] for number in range(4)]
        usual = await subnet(world, alice, networks[0], subnetpool_id=pool["id"])
        assert (usual["cidr"], usual["gateway_ip"], usual["subnetpool_id"]) == ("10.0.0.0/24", "10.0.0.1", pool["id"])
        large = await subnet(world, alice, networks[1], subnetpool_id=pool["id"], prefixlen=20)
        assert large["cidr"] == "10.0.16.0/20"
        named = await subnet(world, alice, networks[2], subnetpool_id=pool["id"], cidr="10.0.1.0/24")
        assert (await subnet(world, alice, networks[3], subnetpool_id=pool["id"]))["cidr"] == "10.0.2.0/24"
        assert named["cidr"] == "10.0.1.0/24"
        assert len(await get(world, alice, f"subnets?subnetpool_id={pool['id']}")) == 4
        status, kind, words = await refused(world, alice, "DELETE", f"subnetpools/{pool['id']}")
        assert (status, kind, usual["id"] in words) == (400, "SubnetPoolDeleteError", True)
        assert (await send(world, alice, "DELETE", f"subnets/{usual['id']}")).status_code == 204
        again = await subnet(world, alice, networks[0], subnetpool_id=pool["id"])
        assert again["cidr"] == "10.0.0.0/24"


@pytest.mark.parametrize(
    ("asked", "status", "kind"),
    [
        ({"cidr": "10.9.0.0/24"}, 409, "SubnetAllocationError"),
        ({"cidr": "10.0.0.0/24"}, 409, "SubnetAllocationError"),
        ({"cidr": "10.0.0.0/15"}, 409, "SubnetAllocationError"),
        ({"prefixlen": 19}, 409, "SubnetAllocationError"),
        ({"prefixlen": 129}, 400, "HTTPBadRequest"),
        ({"prefixlen": 24, "cidr": "10.0.3.0/24"}, 400, "InvalidInput"),
        ({"ip_version": 6}, 400, "InvalidInput"),
        ({"use_default_subnetpool": True}, 400, "InvalidInput"),
        ({"subnetpool_id": None}, 400, "InvalidInput"),
        ({"subnetpool_id": None, "use_default_subnetpool": True}, 400, "InvalidInput"),
        ({"subnetpool_id": None, "cidr": "10.0.5.0/24"}, 400, "NetworkSubnetPoolAffinityError"),
        ({"subnetpool_id": "00000000-0000-4000-8000-000000000000"}, 404, "SubnetPoolNotFound"),
    ],
)
async def test_what_no_subnet_gets_of_a_pool(tmp_path: Path, asked: dict[str, Any], status: int, kind: str) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        pool = await make(world, alice, "subnetpools", prefixes=["10.0.0.0/16"], min_prefixlen=20)
        network = (await make(world, alice, "networks", name="n"))["id"]
        await subnet(world, alice, network, subnetpool_id=pool["id"], cidr="10.0.0.0/24")
        body = {"network_id": network, "ip_version": 4, "subnetpool_id": pool["id"], **asked}
        assert (await refused(world, alice, "POST", "subnets", {"subnet": body}))[:2] == (status, kind)
        assert len(await get(world, alice, "subnets")) == 1


@pytest.mark.parametrize(
    ("asked", "status", "kind"),
    [
        ({"prefixes": []}, 400, "InvalidInput"),
        ({}, 400, "InvalidInput"),
        ({"prefixes": ["10.0.0.0/16", "10.0.1.0/24"]}, 400, "InvalidInput"),
        ({"prefixes": ["10.0.0.0/16", "fd00::/48"]}, 400, "InvalidInput"),
        ({"prefixes": ["x"]}, 400, "InvalidInput"),
        ({"prefixes": ["10.0.0.0/16"], "min_prefixlen": 33}, 400, "IllegalSubnetPoolPrefixBounds"),
        ({"prefixes": ["10.0.0.0/16"], "max_prefixlen": 33}, 400, "IllegalSubnetPoolPrefixBounds"),
        ({"prefixes": ["10.0.0.0/16"], "min_prefixlen": 0}, 400, "IllegalSubnetPoolPrefixBounds"),
        ({"prefixes": ["10.0.0.0/16"], "min_prefixlen": 24, "default_prefixlen": 20}, 400, None),
        ({"prefixes": ["10.0.0.0/16"], "default_quota": -1}, 400, None),
        ({"prefixes": ["10.0.0.0/16"], "shared": True}, 403, "PolicyNotAuthorized"),
        ({"prefixes": ["10.0.0.0/16"], "is_default": True}, 403, "PolicyNotAuthorized"),
    ],
)
async def test_what_is_no_pool(tmp_path: Path, asked: dict[str, Any], status: int, kind: str | None) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        found = await refused(world, alice, "POST", "subnetpools", {"subnetpool": asked})
        assert (found[0], found[1] if kind else None) == (status, kind)


async def test_a_pool_is_shared_is_the_default_grows_and_is_bounded(tmp_path: Path) -> None:
    async with networked(tmp_path, quotas=NetworkQuotas(subnetpool=1)) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        mine = (await make(world, alice, "subnetpools", prefixes=["10.0.0.0/24"], min_prefixlen=26))["id"]
        body = {"subnetpool": {"prefixes": ["10.7.0.0/24"]}}
        assert (await refused(world, alice, "POST", "subnetpools", body))[1] == "OverQuota"
        assert await get(world, bob, "subnetpools") == []
        given = {"prefixes": ["fd00::/48"], "shared": True, "is_default": True, "default_quota": 2}
        pool = (await make(world, admin, "subnetpools", **given))["id"]
        assert [one["id"] for one in await get(world, bob, "subnetpools?is_default=true&ip_version=6")] == [pool]
        networks = [(await make(world, bob, "networks", name=f"n{number}"))["id"] for number in range(3)]
        for number, cidr in enumerate(("fd00::/64", "fd00:0:0:1::/64")):
            made = await subnet(world, bob, networks[number], 6, use_default_subnetpool=True)
            assert made["cidr"] == cidr
        body = {"subnet": {"network_id": networks[2], "ip_version": 6, "use_default_subnetpool": True}}
        assert (await refused(world, bob, "POST", "subnets", body))[1] == "SubnetPoolQuotaExceeded"
        assert (await refused(world, bob, "DELETE", f"subnetpools/{pool}"))[0] == 403
        grown = await change(world, alice, f"subnetpools/{mine}", prefixes=["10.0.0.0/23"], name="grown")
        assert (grown["prefixes"], grown["name"], grown["min_prefixlen"]) == (["10.0.0.0/23"], "grown", "26")
        for wrong, kind in (
            ({"prefixes": ["10.0.0.0/25"]}, "IllegalSubnetPoolPrefixUpdate"),
            ({"prefixes": ["fd00::/48"]}, "InvalidInput"),
            ({"max_prefixlen": 25}, "IllegalSubnetPoolPrefixBounds"),
        ):
            found = await refused(world, alice, "PUT", f"subnetpools/{mine}", {"subnetpool": wrong})
            assert found[1] == kind, found
        assert (await send(world, alice, "DELETE", f"subnetpools/{mine}")).status_code == 204
        assert (await refused(world, alice, "GET", f"subnetpools/{mine}"))[1] == "SubnetPoolNotFound"


async def test_what_is_made_of_itself_is_of_the_default_pool(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        given = {"prefixes": ["192.168.0.0/16"], "default_prefixlen": 28, "is_default": True, "shared": True}
        await make(world, admin, "subnetpools", **given)
        body = {"subnetpool": {"prefixes": ["10.0.0.0/8"], "is_default": True}}
        assert (await refused(world, admin, "POST", "subnetpools", body))[1] == "InvalidInput"
        outside = (await make(world, admin, "networks", **{"router:external": True}))["id"]
        await subnet(world, admin, outside, cidr="192.0.2.0/24")
        project = (await get(world, alice, "quotas/tenant"))["project_id"]
        await send(world, alice, "GET", f"auto-allocated-topology/{project}")
        (made,) = [one for one in await get(world, alice, "subnets") if one["project_id"] == project]
        assert made["cidr"] == "192.168.0.0/28"


def test_the_lowest_free_range_is_chosen_and_never_one_that_is_taken() -> None:
    pool = Pool(4, ("10.0.0.0/24", "10.0.8.0/24"), 26, 25, 32)
    taken: list[str] = []
    for length in (26, 25, 26, 32, 25, 26):
        taken.append(pools.chosen(pool, "p", length, taken))
    assert taken == [
        "10.0.0.0/26",
        "10.0.0.128/25",
        "10.0.0.64/26",
        "10.0.8.0/32",
        "10.0.8.128/25",
        "10.0.8.64/26",
    ]
    with pytest.raises(SubnetAllocationError, match="Insufficient prefix space"):
        pools.chosen(pool, "p", 26, taken)
    assert pools.chosen(pool, "p", 27, taken) == "10.0.8.32/27"
