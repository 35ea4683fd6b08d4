"""Networks and subnets: their bodies, who sees and changes them, and what each refusal names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.domain.network.quota import NetworkQuotas
from tests.api.network_world import FLAT, NET, change, get, make, make_subnet, networked, refused, send
from tests.api.world import in_world

# What Neutron shows: the visible attributes of neutron-lib 5.0.1's maps for the extensions that are listed here.
STANDARD = {"id", "tenant_id", "project_id", "description", "tags", "revision_number", "created_at", "updated_at"}
NETWORK = STANDARD | {
    *(
        "name",
        "subnets",
        "admin_state_up",
        "status",
        "shared",
        "router:external",
        "is_default",
        "port_security_enabled",
    ),
    "mtu",
    *("availability_zones", "availability_zone_hints"),
}
PROVIDER = {"provider:network_type", "provider:physical_network", "provider:segmentation_id"}
SUBNET = STANDARD | {
    *("name", "ip_version", "network_id", "subnetpool_id", "cidr", "gateway_ip", "allocation_pools"),
    *("dns_nameservers", "host_routes", "enable_dhcp", "ipv6_ra_mode", "ipv6_address_mode"),
}


async def test_without_a_driver_there_is_no_network_service(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        assert (await refused(world, admin, "GET", "networks"))[:2] == (404, "HTTPNotFound")
        catalog = (await world.ask("GET", "/identity/v3/auth/catalog", token=admin)).json()["catalog"]
        assert "network" not in {one["type"] for one in catalog}
    async with networked(tmp_path / "on") as world:
        admin = await world.token()
        catalog = (await world.ask("GET", "/identity/v3/auth/catalog", token=admin)).json()["catalog"]
        (url,) = {end["url"] for one in catalog if one["type"] == "network" for end in one["endpoints"]}
        versions = (await world.http.get(url)).json()["versions"]
        assert versions[0]["links"][0]["href"] == f"http://cloud.test{NET}/"


async def test_bodies_have_what_neutron_shows(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        network = await make(world, alice, "networks", name="n", tags=["a"])
        assert set(network) == NETWORK and network["mtu"] == 1450 and network["tags"] == ["a"]
        assert set(await get(world, admin, f"networks/{network['id']}")) == NETWORK | PROVIDER
        subnet = await make_subnet(world, alice, network["id"], "10.0.0.0/24")
        assert set(subnet) == SUBNET
        flat = await make(world, admin, "networks", **FLAT)
        assert (flat["mtu"], flat["provider:network_type"], flat["provider:segmentation_id"]) == (1500, "flat", None)
        shown = await get(world, alice, f"networks/{network['id']}?fields=id&fields=subnets")
        assert shown == {"id": network["id"], "subnets": [subnet["id"]]}


async def test_each_vxlan_network_has_a_number_of_its_own(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        given = await make(world, admin, "networks", **{"provider:segmentation_id": 2})
        others = [await make(world, admin, "networks") for _ in range(3)]
        numbers = [one["provider:segmentation_id"] for one in (given, *others)]
        assert numbers == [2, 1, 3, 4]
        again = await refused(world, admin, "POST", "networks", {"network": {"provider:segmentation_id": 3}})
        assert again[:2] == (409, "VlanIdInUse")
        await make(world, admin, "networks", **FLAT)
        status, kind, words = await refused(world, admin, "POST", "networks", {"network": FLAT})
        assert (status, kind, "physnet1 is in use" in words) == (409, "FlatNetworkInUse", True)


@pytest.mark.parametrize(
    ("network", "status", "kind", "words"),
    [
        ({"name": "x" * 256}, 400, "HTTPBadRequest", "256 characters"),
        ({"colour": "red"}, 400, "HTTPBadRequest", "'colour'"),
        ({"mtu": 1451}, 400, "InvalidInput", "1451 exceeds 1450"),
        ({"mtu": 67}, 400, "HTTPBadRequest", "67 is not between 68"),
        ({"admin_state_up": "perhaps"}, 400, "HTTPBadRequest", "not a boolean"),
        ({"provider:network_type": "vlan"}, 400, "HTTPBadRequest", "vxlan, flat"),
        ({"provider:network_type": "flat"}, 400, "InvalidInput", "there is physnet1"),
        (FLAT | {"provider:segmentation_id": 5}, 400, "InvalidInput", "segmentation_id"),
        ({"provider:network_type": "vxlan", "provider:physical_network": "physnet1"}, 400, "InvalidInput", "VXLAN"),
        ({"provider:segmentation_id": 1 << 24}, 400, "HTTPBadRequest", "16777216"),
        ({"tags": ["a,b"]}, 400, "InvalidInput", "comma"),
        ({"project_id": "a", "tenant_id": "b"}, 400, "HTTPBadRequest", "do not match"),
        ({"availability_zone_hints": ["z"]}, 400, "InvalidInput", "leave it out"),
    ],
)
async def test_what_no_network_is(tmp_path: Path, network: Any, status: int, kind: str, words: str) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        found = await refused(world, admin, "POST", "networks", {"network": network})
        assert found[:2] == (status, kind) and words in found[2]
        assert await get(world, admin, "networks") == []


async def test_who_sees_and_who_changes(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin, alice, rita, bob = [
            await world.token(*who) for who in (("admin", "admin"), ("alice", "red"), ("rita", "red"), ("bob", "blue"))
        ]
        mine = await make(world, alice, "networks", name="mine")
        shared = await make(world, admin, "networks", name="shared", shared=True)
        outside = await make(world, admin, "networks", name="outside", **FLAT)
        hidden = await make(world, admin, "networks", name="hidden")
        for token, names in (
            (alice, {"mine", "shared", "outside"}),
            (rita, {"mine", "shared", "outside"}),
            (bob, {"shared", "outside"}),
            (admin, {"mine", "shared", "outside", "hidden"}),
        ):
            assert {one["name"] for one in await get(world, token, "networks")} == names
        for network in (mine, hidden):
            assert (await refused(world, bob, "GET", f"networks/{network['id']}"))[:2] == (404, "NetworkNotFound")
            assert (await refused(world, bob, "DELETE", f"networks/{network['id']}"))[0] == 404
        for network in (shared, outside):
            path, body = f"networks/{network['id']}", {"network": {"name": "theirs"}}
            assert (await refused(world, bob, "PUT", path, body))[:2] == (403, "PolicyNotAuthorized")
            assert (await refused(world, bob, "DELETE", path))[:2] == (403, "PolicyNotAuthorized")
        assert (await refused(world, rita, "POST", "networks", {"network": {}}))[:2] == (403, "PolicyNotAuthorized")
        for member, value in (("shared", True), ("router:external", True), ("provider:network_type", "vxlan")):
            _, kind, words = await refused(world, alice, "POST", "networks", {"network": {member: value}})
            assert (kind, f"create_network:{member}" in words) == ("PolicyNotAuthorized", True)
        given = {"network": {"project_id": (await get(world, bob, "quotas/tenant"))["project_id"]}}
        assert (await refused(world, alice, "POST", "networks", given))[:2] == (403, "PolicyNotAuthorized")
        theirs = await send(world, admin, "POST", "networks", given)
        assert theirs.json()["network"]["project_id"] == given["network"]["project_id"]


async def test_subnets_that_cannot_be_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = (await make(world, alice, "networks"))["id"]
        first = await make_subnet(world, alice, network, "10.0.0.0/24")
        for given, status, kind, words in (
            ({"cidr": "0.0.0.0/0"}, 400, "InvalidInput", "0 is not allowed"),
            ({"cidr": "2001:db8::/127", "ip_version": 6}, 400, "InvalidInput", "2001:db8::/127"),
            ({"cidr": "10.0.0.128/25"}, 400, "InvalidInput", first["id"]),
            ({"cidr": "10.0.1.0/24", "gateway_ip": "10.0.2.1"}, 400, "InvalidInput", "10.0.2.1"),
            ({"cidr": "10.0.1.0/24", "ip_version": 5}, 400, "InvalidInput", "[4, 6]"),
            ({"cidr": "x"}, 400, "InvalidInput", "'x'"),
            ({"cidr": "10.0.1.0/24", "allocation_pools": [{"start": "10.0.1.9"}]}, 400, "InvalidInput", "end"),
            (
                {"cidr": "10.0.1.0/24", "allocation_pools": [{"start": "10.0.1.1", "end": "10.0.1.9"}]},
                409,
                "GatewayConflictWithAllocationPools",
                "10.0.1.1",
            ),
            ({"cidr": "10.0.1.0/24", "dns_nameservers": ["a\nb"]}, 400, "InvalidInput", "IP address"),
            ({"cidr": "10.0.1.0/24", "network_id": "x"}, 400, "InvalidInput", "UUID"),
            ({"cidr": "10.0.1.0/24", "network_id": first["id"]}, 404, "NetworkNotFound", first["id"]),
        ):
            body = {"subnet": {"network_id": network, "ip_version": 4} | given}
            found = await refused(world, alice, "POST", "subnets", body)
            assert found[:2] == (status, kind) and words in found[2], found
        assert [one["id"] for one in await get(world, alice, "subnets")] == [first["id"]]


async def test_a_subnet_changes_and_its_dhcp_with_it(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = (await make(world, alice, "networks"))["id"]
        subnet = await make_subnet(world, alice, network, "10.0.0.0/24")
        path = f"subnets/{subnet['id']}"

        async def dhcp() -> list[list[str]]:
            found = await get(world, alice, f"ports?network_id={network}&device_owner=network:dhcp")
            return [[one["ip_address"] for one in port["fixed_ips"]] for port in found]

        assert await dhcp() == [["10.0.0.2"]]
        six = await make_subnet(world, alice, network, "2001:db8::/64")
        assert await dhcp() == [["10.0.0.2", "2001:db8::2"]]
        changed = await change(world, alice, path, enable_dhcp=False, dns_nameservers=["192.0.2.1"], name="s")
        assert (changed["dns_nameservers"], changed["name"], changed["revision_number"]) == (["192.0.2.1"], "s", 1)
        assert await dhcp() == [["2001:db8::2"]]
        await change(world, alice, path, enable_dhcp=True)
        assert await dhcp() == [["2001:db8::2", "10.0.0.2"]]
        inside = await refused(world, alice, "PUT", path, {"subnet": {"gateway_ip": "10.0.0.9"}})
        assert inside[:2] == (409, "GatewayConflictWithAllocationPools")
        pools = [{"start": "10.0.0.100", "end": "10.0.0.200"}]
        moved = await change(world, alice, path, gateway_ip="10.0.0.9", allocation_pools=pools)
        assert (moved["gateway_ip"], moved["allocation_pools"]) == ("10.0.0.9", pools)
        assert (await change(world, alice, path, gateway_ip=None))["gateway_ip"] is None
        assert (await refused(world, alice, "PUT", path, {"subnet": {"cidr": "10.0.0.0/8"}}))[0] == 400
        assert (await send(world, alice, "DELETE", f"subnets/{six['id']}")).status_code == 204
        assert (await send(world, alice, "DELETE", path)).status_code == 204
        assert await dhcp() == []


async def test_what_is_used_stays_and_what_is_left_goes_whole(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = (await make(world, alice, "networks"))["id"]
        subnet = await make_subnet(world, alice, network, "10.0.0.0/24")
        port = await make(world, alice, "ports", network_id=network, device_owner="compute:nova")
        for path, kind in ((f"networks/{network}", "NetworkInUse"), (f"subnets/{subnet['id']}", "SubnetInUse")):
            status, found, words = await refused(world, alice, "DELETE", path)
            assert (status, found, f"{port['id']} (compute:nova)" in words) == (409, kind, True)
        assert (await send(world, alice, "DELETE", f"ports/{port['id']}")).status_code == 204
        assert (await send(world, alice, "DELETE", f"networks/{network}")).status_code == 204
        for path in ("networks", "subnets", "ports"):
            assert await get(world, alice, path) == []


async def test_several_at_once_are_all_or_none(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        made = await send(world, alice, "POST", "networks", {"networks": [{"name": "a"}, {"name": "b"}]})
        assert made.status_code == 201
        first, second = made.json()["networks"]
        assert (first["name"], second["name"]) == ("a", "b")
        several = [
            {"network_id": first["id"], "cidr": "10.0.0.0/24", "ip_version": 4},
            {"network_id": first["id"], "cidr": "10.0.0.0/25", "ip_version": 4},
        ]
        assert (await refused(world, alice, "POST", "subnets", {"subnets": several}))[1] == "InvalidInput"
        assert await get(world, alice, "subnets") == [] == await get(world, alice, "ports")
        for wrong in ([], "x", [{}] * 1001, [7]):
            assert (await refused(world, alice, "POST", "networks", {"networks": wrong}))[0] == 400


async def test_quotas_bound_what_a_project_has(tmp_path: Path) -> None:
    limited = NetworkQuotas(
        network=1, subnet=1, port=2, security_group=2, security_group_rule=5, router=1, floatingip=0
    )
    async with networked(tmp_path, quotas=limited) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        network = (await make(world, alice, "networks"))["id"]
        status, kind, words = await refused(world, alice, "POST", "networks", {"network": {}})
        assert (status, kind, "['network']" in words) == (409, "OverQuota", True)
        await make(world, bob, "networks")
        await make_subnet(world, alice, network, "10.0.0.0/24")
        await make(world, alice, "ports", network_id=network)
        assert (await refused(world, alice, "POST", "ports", {"port": {"network_id": network}}))[1] == "OverQuota"
        project = (await get(world, alice, "quotas/tenant"))["project_id"]
        assert (await get(world, alice, f"quotas/{project}"))["network"] == 1
        details = await get(world, alice, f"quotas/{project}/details")
        assert details["port"] == {"limit": 2, "used": 2, "reserved": 0}
        assert (await refused(world, alice, "PUT", f"quotas/{project}", {"quota": {"network": 5}}))[0] == 403
        checked = {"quota": {"port": 1, "check_limit": True}}
        assert (await refused(world, admin, "PUT", f"quotas/{project}", checked))[0] == 400
        raised = await send(world, admin, "PUT", f"quotas/{project}", {"quota": {"network": 2}})
        assert raised.json()["quota"]["network"] == 2
        await make(world, alice, "networks")
        assert [one["project_id"] for one in await get(world, admin, "quotas")] == [project]
        assert (await send(world, admin, "DELETE", f"quotas/{project}")).status_code == 204
        assert (await get(world, admin, f"quotas/{project}"))["network"] == 1
        assert (await get(world, admin, f"quotas/{project}/default"))["security_group_rule"] == 5
