"""Ports: their bodies, addresses and MACs that are in use, groups and port security, and whose they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.api.network_world import FLAT, change, get, make, make_subnet, networked, refused, send
from tests.api.test_networks import STANDARD
from tests.api.world import World

PORT = STANDARD | {
    *("name", "network_id", "admin_state_up", "mac_address", "fixed_ips", "device_id", "device_owner", "status"),
    *("port_security_enabled", "binding:vnic_type", "allowed_address_pairs", "security_groups"),
}
BINDING = {"binding:vif_type", "binding:vif_details", "binding:host_id", "binding:profile"}


async def make_net(world: World, token: str, cidr: str = "10.0.0.0/24", **more: Any) -> tuple[str, str]:
    network = (await make(world, token, "networks", **more))["id"]
    return network, (await make_subnet(world, token, network, cidr))["id"]


def addresses(port: dict[str, Any]) -> list[str]:
    return [one["ip_address"] for one in port["fixed_ips"]]


async def test_bodies_have_what_neutron_shows(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        network, subnet = await make_net(world, alice)
        port = await make(world, alice, "ports", network_id=network)
        assert set(port) == PORT and port["status"] == "DOWN"
        assert port["fixed_ips"] == [{"subnet_id": subnet, "ip_address": "10.0.0.3"}]
        (group,) = await get(world, alice, "security-groups")
        assert port["security_groups"] == [group["id"]] and group["name"] == "default"
        seen = await get(world, admin, f"ports/{port['id']}")
        assert set(seen) == PORT | BINDING and seen["binding:vif_type"] == "unbound"
        bound = await change(world, admin, f"ports/{port['id']}", **{"binding:host_id": "h1"})
        assert (bound["binding:host_id"], bound["binding:vif_type"], bound["revision_number"]) == ("h1", "bridge", 2)


async def test_sixteen_clients_at_once_and_no_address_twice(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network, _ = await make_net(world, alice, "10.0.0.0/25")

        async def client() -> list[str]:
            made = [await make(world, alice, "ports", network_id=network) for _ in range(7)]
            return [address for port in made for address in addresses(port)]

        found = [address for several in await asyncio.gather(*(client() for _ in range(16))) for address in several]
        assert len(found) == len(set(found)) == 112
        assert "10.0.0.1" not in found and "10.0.0.2" not in found
        replies = await asyncio.gather(
            *(send(world, alice, "POST", "ports", {"port": {"network_id": network}}) for _ in range(32))
        )
        assert sorted(reply.status_code for reply in replies) == [201] * 12 + [409] * 20
        full = [reply.json()["NeutronError"] for reply in replies if reply.status_code == 409]
        assert {one["type"] for one in full} == {"IpAddressGenerationFailure"}
        assert "10.0.0.0/25" in full[0]["message"] and "add a subnet" in full[0]["message"]


async def test_what_is_in_use_is_named(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network, subnet = await make_net(world, alice)
        one = await make(world, alice, "ports", network_id=network, mac_address="FA:16:3E:00:00:01")
        for given, status, kind, words in (
            ({"fixed_ips": [{"ip_address": "10.0.0.3"}]}, 409, "IpAddressInUse", one["id"]),
            ({"fixed_ips": [{"ip_address": "10.0.0.255"}]}, 400, "InvalidIpForSubnet", "10.0.0.255"),
            ({"fixed_ips": [{"ip_address": "10.0.1.3"}]}, 400, "InvalidIpForNetwork", "10.0.1.3"),
            ({"fixed_ips": [{"subnet_id": network}]}, 404, "SubnetNotFound", network),
            ({"fixed_ips": [{"subnet_id": subnet}] * 6}, 400, "InvalidInput", "5 are accepted"),
            ({"fixed_ips": [{"ip_address": "10.0.0.9"}] * 2}, 400, "InvalidInput", "twice"),
            ({"fixed_ips": [{}]}, 400, "InvalidInput", "subnet_id or ip_address"),
            ({"fixed_ips": [{"ip_address": "x"}]}, 400, "InvalidInput", "'x'"),
            ({"fixed_ips": "x"}, 400, "InvalidInput", "list"),
            ({"mac_address": "fa:16:3e:00:00:01"}, 409, "MacAddressInUse", one["id"]),
            ({"mac_address": "01:00:5e:00:00:01"}, 400, "InvalidInput", "MAC"),
            ({"network_id": one["id"]}, 404, "NetworkNotFound", one["id"]),
            ({"security_groups": [one["id"]]}, 404, "SecurityGroupNotFound", one["id"]),
            ({"security_groups": ["x"]}, 400, "InvalidInput", "UUID"),
            ({"allowed_address_pairs": [{}]}, 400, "InvalidInput", "must contain ip_address"),
            ({"allowed_address_pairs": [{"ip_address": "10.0.0.9"}] * 11}, 400, "InvalidInput", "at most 10"),
            ({"binding:vnic_type": "direct"}, 400, "HTTPBadRequest", "normal"),
            (
                {"port_security_enabled": False, "allowed_address_pairs": [{"ip_address": "10.0.0.9"}]},
                400,
                "PortSecurityAndIPRequiredForSecurityGroups",
                "leave them out",
            ),
        ):
            found = await refused(world, alice, "POST", "ports", {"port": {"network_id": network} | given})
            assert found[:2] == (status, kind) and words in found[2], (given, found)
        assert [port["id"] for port in await get(world, alice, "ports?device_owner=")] == [one["id"]]


async def test_a_port_changes(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network, subnet = await make_net(world, alice)
        two = [{"subnet_id": subnet}, {"subnet_id": subnet}]
        port = await make(world, alice, "ports", network_id=network, fixed_ips=two)
        assert addresses(port) == ["10.0.0.3", "10.0.0.4"]
        path = f"ports/{port['id']}"
        kept = {"ip_address": "10.0.0.4"}
        assert addresses(await change(world, alice, path, fixed_ips=[kept, {"ip_address": "10.0.0.7"}])) == [
            "10.0.0.4",
            "10.0.0.7",
        ]
        assert addresses(await make(world, alice, "ports", network_id=network, fixed_ips=[{"ip_address": "10.0.0.3"}]))
        group = (await make(world, alice, "security-groups", name="g"))["id"]
        pairs = [{"ip_address": "10.0.0.9"}, {"ip_address": "10.1.0.0/24", "mac_address": "fa:16:3e:00:00:09"}]
        changed = await change(world, alice, path, security_groups=[group], allowed_address_pairs=pairs, name="p")
        assert (changed["security_groups"], changed["name"]) == ([group], "p")
        assert changed["allowed_address_pairs"] == [
            {"ip_address": "10.0.0.9", "mac_address": port["mac_address"]},
            {"ip_address": "10.1.0.0/24", "mac_address": "fa:16:3e:00:00:09"},
        ]
        open_ = {"port": {"port_security_enabled": False}}
        assert (await refused(world, alice, "PUT", path, open_))[1] == "PortSecurityAndIPRequiredForSecurityGroups"
        free = {"port_security_enabled": False, "security_groups": [], "allowed_address_pairs": []}
        assert (await change(world, alice, path, **free))["security_groups"] == []
        assert addresses(await change(world, alice, path, fixed_ips=[])) == []


async def test_whose_ports_are_seen_and_made(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin, alice, bob = await world.token(), await world.token("alice", "red"), await world.token("bob", "blue")
        shared, subnet = await make_net(world, admin, shared=True)
        private, _ = await make_net(world, alice, "10.9.0.0/24")
        outside = (await make(world, admin, "networks", **FLAT))["id"]
        port = await make(world, alice, "ports", network_id=shared, fixed_ips=[{"subnet_id": subnet}])
        assert (await refused(world, bob, "GET", f"ports/{port['id']}"))[:2] == (404, "PortNotFound")
        assert await get(world, bob, "ports") == []
        assert {one["id"] for one in await get(world, bob, "subnets")} == {subnet}
        assert port["id"] in {one["id"] for one in await get(world, admin, "ports")}
        for given in (
            {"fixed_ips": [{"ip_address": "10.0.0.9"}]},
            {"mac_address": "fa:16:3e:00:00:09"},
            {"port_security_enabled": False},
            {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]},
            {"device_owner": "network:dhcp"},
            {"binding:host_id": "h1"},
            {"network_id": outside},
        ):
            found = await refused(world, bob, "POST", "ports", {"port": {"network_id": shared} | given})
            assert found[:2] == (403, "PolicyNotAuthorized"), given
        assert (await refused(world, bob, "POST", "ports", {"port": {"network_id": private}}))[0] == 404
        spoofed = {"port": {"allowed_address_pairs": [{"ip_address": "10.0.0.1"}]}}
        assert (await refused(world, alice, "PUT", f"ports/{port['id']}", spoofed))[1] == "PolicyNotAuthorized"
        theirs = (await make(world, bob, "security-groups", name="b"))["id"]
        stolen = {"port": {"network_id": shared, "security_groups": [theirs]}}
        assert (await refused(world, alice, "POST", "ports", stolen))[:2] == (404, "SecurityGroupNotFound")
        found = await refused(world, admin, "PUT", f"networks/{shared}", {"network": {"shared": False}})
        assert found[:2] == (400, "InvalidInput") and port["id"] in found[2]


async def test_what_serves_a_network_is_no_port_to_be_played_with(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network, subnet = await make_net(world, alice)
        router = (await make(world, alice, "routers"))["id"]
        await send(world, alice, "PUT", f"routers/{router}/add_router_interface", {"subnet_id": subnet})
        for port in await get(world, alice, f"ports?network_id={network}"):
            path = f"ports/{port['id']}"
            assert port["device_owner"] in ("network:dhcp", "network:router_interface")
            assert (await refused(world, alice, "DELETE", path))[:2] == (409, "ServicePortInUse")
            assert (await refused(world, alice, "PUT", path, {"port": {"fixed_ips": []}}))[1] == "ServicePortInUse"
            assert (await change(world, alice, path, name="known"))["name"] == "known"


async def test_a_network_that_goes_while_ports_are_made(tmp_path: Path) -> None:
    """Either the port is there, and the network with it, or neither is."""
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        for _ in range(5):
            network, _ = await make_net(world, alice)
            asked = [send(world, alice, "POST", "ports", {"port": {"network_id": network}}) for _ in range(4)]
            asked.insert(2, send(world, alice, "DELETE", f"networks/{network}"))
            statuses = [reply.status_code for reply in await asyncio.gather(*asked)]
            gone = statuses[2] == 204
            left = await get(world, alice, f"ports?network_id={network}&device_owner=")
            assert len(left) == (0 if gone else statuses.count(201))


async def test_a_mac_is_changed_by_an_administrator_alone(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        network, _ = await make_net(world, alice)
        one, other = [await make(world, alice, "ports", network_id=network) for _ in range(2)]
        path, wanted = f"ports/{one['id']}", {"port": {"mac_address": "fa:16:3e:00:00:aa"}}
        assert (await refused(world, alice, "PUT", path, wanted))[:2] == (403, "PolicyNotAuthorized")
        taken = {"port": {"mac_address": other["mac_address"]}}
        found = await refused(world, admin, "PUT", path, taken)
        assert found[:2] == (409, "MacAddressInUse") and other["id"] in found[2]
        assert (await change(world, admin, path, mac_address="fa:16:3e:00:00:aa"))["mac_address"] == "fa:16:3e:00:00:aa"
        assert (await change(world, admin, path, mac_address="fa:16:3e:00:00:aa"))["id"] == one["id"]
