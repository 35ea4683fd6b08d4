"""Routers and floating IPs: what leads where, and what keeps a part from going."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.api.network_world import FLAT, change, get, make, make_subnet, networked, refused, send
from tests.api.test_networks import STANDARD
from tests.api.world import World

ROUTER = STANDARD | {
    *("name", "admin_state_up", "status", "external_gateway_info", "routes"),
    *("availability_zones", "availability_zone_hints"),
}
FLOATING = STANDARD | {
    *("floating_ip_address", "floating_network_id", "router_id", "port_id", "fixed_ip_address", "status"),
}


class Site:
    """alice's network behind her router, and the administrator's network outside."""

    def __init__(self, world: World, admin: str, alice: str) -> None:
        self.world, self.admin, self.alice = world, admin, alice

    async def lay(self) -> Site:
        world = self.world
        self.out = (await make(world, self.admin, "networks", **FLAT))["id"]
        outside = {"enable_dhcp": False}
        self.outside = (await make_subnet(world, self.admin, self.out, "203.0.113.0/28", **outside))["id"]
        self.net = (await make(world, self.alice, "networks"))["id"]
        self.subnet = (await make_subnet(world, self.alice, self.net, "10.0.0.0/24"))["id"]
        made = await make(world, self.alice, "routers", name="r", external_gateway_info={"network_id": self.out})
        assert set(made) == ROUTER
        self.router = made["id"]
        return self

    async def interface(self, verb: str, **wanted: str) -> Any:
        return await send(self.world, self.alice, "PUT", f"routers/{self.router}/{verb}_router_interface", wanted)

    async def no_interface(self, verb: str, **wanted: str) -> tuple[int, str, str]:
        path = f"routers/{self.router}/{verb}_router_interface"
        return await refused(self.world, self.alice, "PUT", path, wanted)


async def laid(world: World) -> Site:
    return await Site(world, await world.token(), await world.token("alice", "red")).lay()


async def test_a_router_gets_its_subnets_and_gives_them_back(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        added = (await site.interface("add", subnet_id=site.subnet)).json()
        assert (added["id"], added["subnet_id"], added["subnet_ids"]) == (site.router, site.subnet, [site.subnet])
        port = await get(world, site.alice, f"ports/{added['port_id']}")
        assert (port["device_owner"], port["device_id"]) == ("network:router_interface", site.router)
        assert port["fixed_ips"] == [{"subnet_id": site.subnet, "ip_address": "10.0.0.1"}]
        assert (await site.no_interface("add", subnet_id=site.subnet))[:2] == (400, "BadRouterRequest")
        status, kind, words = await refused(world, site.alice, "DELETE", f"routers/{site.router}")
        assert (status, kind, added["port_id"] in words) == (409, "RouterInUse", True)
        gone = (await site.interface("remove", subnet_id=site.subnet)).json()
        assert gone["port_id"] == added["port_id"]
        assert (await site.no_interface("remove", subnet_id=site.subnet))[:2] == (404, "RouterInterfaceNotFound")
        assert (await send(world, site.alice, "DELETE", f"routers/{site.router}")).status_code == 204
        assert [one["device_owner"] for one in await get(world, site.admin, "ports")] == ["network:dhcp"]


async def test_what_overlaps_is_not_on_one_router(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        await site.interface("add", subnet_id=site.subnet)
        other = (await make(world, site.alice, "networks"))["id"]
        wide = await make_subnet(world, site.alice, other, "10.0.0.0/16", gateway_ip="10.0.9.1")
        like_outside = (await make(world, site.alice, "networks"))["id"]
        inside_out = await make_subnet(world, site.alice, like_outside, "203.0.113.0/24", gateway_ip="203.0.113.99")
        without = (await make(world, site.alice, "networks"))["id"]
        no_gateway = await make_subnet(world, site.alice, without, "10.7.0.0/24", gateway_ip=None)
        for subnet, words in (
            (
                wide["id"],
                f"Cidr 10.0.0.0/16 of subnet {wide['id']} overlaps with cidr 10.0.0.0/24 of subnet {site.subnet}",
            ),
            (inside_out["id"], site.outside),
            (no_gateway["id"], "must have a gateway IP"),
        ):
            found = await site.no_interface("add", subnet_id=subnet)
            assert found[:2] == (400, "BadRouterRequest") and words in found[2], found
        own = await make(world, site.alice, "ports", network_id=without)
        assert (await site.interface("add", port_id=own["id"])).status_code == 200
        taken = await site.no_interface("add", port_id=own["id"])
        assert taken[:2] == (409, "PortInUse") and site.router in taken[2]
        for wanted in ({}, {"subnet_id": site.subnet, "port_id": own["id"]}):
            assert (await site.no_interface("add", **wanted))[1] == "BadRouterRequest"
        assert len(await get(world, site.alice, f"ports?device_id={site.router}")) == 2


async def test_the_gateway_of_a_router(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        path = f"routers/{site.router}"
        info = (await get(world, site.alice, path))["external_gateway_info"]
        assert info == {
            "network_id": site.out,
            "enable_snat": True,
            "external_fixed_ips": [{"subnet_id": site.outside, "ip_address": "203.0.113.2"}],
        }
        assert await get(world, site.alice, f"ports?device_id={site.router}") == []
        for given in ({"enable_snat": False}, {"external_fixed_ips": [{"ip_address": "203.0.113.9"}]}):
            body = {"router": {"external_gateway_info": {"network_id": site.out} | given}}
            assert (await refused(world, site.alice, "PUT", path, body))[:2] == (403, "PolicyNotAuthorized")
            changed = await send(world, site.admin, "PUT", path, body)
            assert changed.status_code == 200, changed.text
        info = changed.json()["router"]["external_gateway_info"]
        assert (info["enable_snat"], info["external_fixed_ips"][0]["ip_address"]) == (False, "203.0.113.9")
        inside = {"router": {"external_gateway_info": {"network_id": site.net}}}
        found = await refused(world, site.alice, "PUT", path, inside)
        assert found[:2] == (400, "BadRouterRequest") and "is not an external network" in found[2]
        bad = {"router": {"external_gateway_info": {"enable_snat": True}}}
        assert (await refused(world, site.admin, "PUT", path, bad))[:2] == (400, "InvalidInput")
        kept = await refused(world, site.admin, "DELETE", f"networks/{site.out}")
        assert kept[1] == "NetworkInUse" and "network:router_gateway" in kept[2]
        inner = {"network": {"router:external": False}}
        assert (await refused(world, site.admin, "PUT", f"networks/{site.out}", inner))[1] == "NetworkInUse"
        assert (await change(world, site.alice, path, external_gateway_info=None))["external_gateway_info"] is None
        assert (await send(world, site.admin, "DELETE", f"networks/{site.out}")).status_code == 204


async def test_routes_lead_to_neighbours(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        await site.interface("add", subnet_id=site.subnet)
        path, route = f"routers/{site.router}", {"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}
        assert (await change(world, site.alice, path, routes=[route]))["routes"] == [route]
        for hop in ("10.1.0.9", "10.0.0.1"):
            body = {"router": {"routes": [route | {"nexthop": hop}]}}
            assert (await refused(world, site.alice, "PUT", path, body))[:2] == (400, "InvalidInput")
        found = await site.no_interface("remove", subnet_id=site.subnet)
        assert found[:2] == (409, "RouterInterfaceInUseByRoute") and "192.0.2.0/24" in found[2]
        await change(world, site.alice, path, routes=[])
        assert (await site.interface("remove", subnet_id=site.subnet)).status_code == 200


async def test_a_floating_ip_leads_to_a_port_and_keeps_what_it_leads_through(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        alice = site.alice
        port = await make(world, alice, "ports", network_id=site.net)
        given = {"floating_network_id": site.out, "port_id": port["id"]}
        unreached = await refused(world, alice, "POST", "floatingips", {"floatingip": given})
        assert unreached[:2] == (404, "ExternalGatewayForFloatingIPNotFound") and site.subnet in unreached[2]
        assert await get(world, alice, "floatingips") == []
        await site.interface("add", subnet_id=site.subnet)
        made = await make(world, alice, "floatingips", **given)
        assert set(made) == FLOATING
        assert (made["router_id"], made["fixed_ip_address"], made["status"]) == (site.router, "10.0.0.3", "ACTIVE")
        again = await refused(world, alice, "POST", "floatingips", {"floatingip": given})
        assert again[:2] == (409, "FloatingIPPortAlreadyAssociated") and made["id"] in again[2]
        address = made["floating_ip_address"]
        for refusal, kind in (
            (await site.no_interface("remove", subnet_id=site.subnet), "RouterInterfaceInUseByFloatingIP"),
            (
                await refused(world, alice, "PUT", f"routers/{site.router}", {"router": {"external_gateway_info": {}}}),
                "RouterExternalGatewayInUseByFloatingIp",
            ),
        ):
            assert refusal[:2] == (409, kind) and address in refusal[2]
        path = f"floatingips/{made['id']}"
        off = await change(world, alice, path, port_id=None)
        assert (off["port_id"], off["fixed_ip_address"], off["router_id"], off["status"]) == (None, None, None, "DOWN")
        assert (await change(world, alice, path, port_id=port["id"]))["status"] == "ACTIVE"
        assert (await send(world, alice, "DELETE", f"ports/{port['id']}")).status_code == 204
        assert (await get(world, alice, path))["port_id"] is None
        assert (await change(world, alice, path, description="d"))["description"] == "d"
        assert (await send(world, alice, "DELETE", path)).status_code == 204
        owners = {one["device_owner"] for one in await get(world, site.admin, f"ports?network_id={site.out}")}
        assert owners == {"network:router_gateway"}


async def test_what_a_floating_ip_cannot_be(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        await site.interface("add", subnet_id=site.subnet)
        two = [{"subnet_id": site.subnet}] * 2
        port = await make(world, site.alice, "ports", network_id=site.net, fixed_ips=two)
        bare = await make(world, site.alice, "ports", network_id=site.net, fixed_ips=[])
        base = {"floating_network_id": site.out}
        for given, kind, words in (
            ({"floating_network_id": site.net}, "BadFloatingipRequest", "not a valid external network"),
            ({"port_id": port["id"]}, "BadFloatingipRequest", "multiple fixed IPv4"),
            ({"port_id": bare["id"]}, "BadFloatingipRequest", "no fixed IPv4"),
            ({"port_id": port["id"], "fixed_ip_address": "10.0.0.99"}, "BadFloatingipRequest", "10.0.0.3, 10.0.0.4"),
            ({"fixed_ip_address": "10.0.0.3"}, "BadFloatingipRequest", "without a port_id"),
            ({"port_id": site.net}, "PortNotFound", site.net),
            ({"floating_ip_address": "203.0.113.9"}, "PolicyNotAuthorized", "floating_ip_address"),
        ):
            found = await refused(world, site.alice, "POST", "floatingips", {"floatingip": base | given})
            assert found[1] == kind and words in found[2], found
        chosen = {"floating_ip_address": "203.0.113.9"}
        made = await make(world, site.admin, "floatingips", **base, **chosen)
        assert made["floating_ip_address"] == "203.0.113.9"
        exact = {"port_id": port["id"], "fixed_ip_address": "10.0.0.4"}
        assert (await make(world, site.alice, "floatingips", **base, **exact))["fixed_ip_address"] == "10.0.0.4"
        statuses = [
            (await send(world, site.alice, "POST", "floatingips", {"floatingip": base})).status_code for _ in range(12)
        ]
        assert statuses == [201] * 10 + [409] * 2


async def test_what_would_overlap_outside_and_what_has_no_address(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        like = (await make(world, site.alice, "networks"))["id"]
        inside = await make_subnet(world, site.alice, like, "203.0.113.0/24", gateway_ip="203.0.113.99")
        router = (await make(world, site.alice, "routers"))["id"]
        path = f"routers/{router}"
        await send(world, site.alice, "PUT", f"{path}/add_router_interface", {"subnet_id": inside["id"]})
        body = {"router": {"external_gateway_info": {"network_id": site.out}}}
        found = await refused(world, site.alice, "PUT", path, body)
        assert found[:2] == (400, "BadRouterRequest") and inside["id"] in found[2]
        assert (await get(world, site.alice, path))["external_gateway_info"] is None
        outside = {"router:external": True, "provider:network_type": "vxlan"}
        empty = (await make(world, site.admin, "networks", **outside))["id"]
        bare = {"router": {"external_gateway_info": {"network_id": empty}}}
        found = await refused(world, site.alice, "PUT", path, bare)
        assert found[:2] == (400, "BadRouterRequest") and "No subnets on external network" in found[2]
        floating = {"floatingip": {"floating_network_id": empty}}
        found = await refused(world, site.alice, "POST", "floatingips", floating)
        assert found[:2] == (400, "BadFloatingipRequest") and "no IPv4 subnet" in found[2]
        owners = [one["device_owner"] for one in await get(world, site.admin, f"ports?network_id={empty}")]
        assert owners == []


async def test_the_gateway_of_a_subnet_stays_while_a_router_has_it(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        site = await laid(world)
        added = (await site.interface("add", subnet_id=site.subnet)).json()
        body = {"subnet": {"gateway_ip": None}}
        found = await refused(world, site.alice, "PUT", f"subnets/{site.subnet}", body)
        assert found[:2] == (409, "GatewayIpInUse") and added["port_id"] in found[2]
        same = await send(world, site.alice, "PUT", f"subnets/{site.subnet}", {"subnet": {"gateway_ip": "10.0.0.1"}})
        assert same.status_code == 200
        await site.interface("remove", subnet_id=site.subnet)
        freed = await send(world, site.alice, "PUT", f"subnets/{site.subnet}", body)
        assert freed.json()["subnet"]["gateway_ip"] is None
