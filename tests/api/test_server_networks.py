"""Interfaces of servers: how they may be asked for, and how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from droveway.api.wiring import NetworkSettings
from droveway.domain.network.quota import NO_NETWORK_LIMITS, NetworkQuotas
from droveway.store.compute import instances, server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.network import ports
from tests.api.world import NOVA, World, in_world, make_image, reason, sagas_of

NET = "/network/v2.0"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def networked(tmp_path: Path, **more: Any) -> Any:
    return in_world(tmp_path, network=NetworkSettings(is_on=True, **more))


async def made(world: World, token: str, kind: str, **values: Any) -> dict[str, Any]:
    reply = await world.ask("POST", f"{NET}/{kind}s".replace("_", "-"), token=token, json={kind: values})
    assert reply.status_code == 201, reply.text
    return dict(reply.json()[kind])


async def network(world: World, token: str, name: str = "red", cidr: str = "10.1.0.0/24", **more: Any) -> str:
    found = await made(world, token, "network", name=name, **more)
    await made(world, token, "subnet", network_id=found["id"], cidr=cidr, ip_version=4)
    return str(found["id"])


async def post(world: World, token: str, image: str, version: str = "2.96", **server: Any) -> httpx.Response:
    body = {"name": "g", "imageRef": image, "flavorRef": "tiny", **server}
    return await world.ask("POST", f"{NOVA}/servers", token=token, version=version, json={"server": body})


async def asked(world: World, reply: httpx.Response) -> tuple[list[Any], list[str]]:
    """What the boot of the server is to make."""
    assert reply.status_code == 202, reply.text
    (saga,) = await sagas_of(world, reply.json()["server"]["id"])
    return saga["params"].get("nics", []), saga["params"].get("groups", [])


async def wired(world: World, reply: httpx.Response) -> str:
    """What that boot writes first."""
    nics, groups = await asked(world, reply)
    server_id = str(reply.json()["server"]["id"])

    def write(tx: Tx) -> None:
        wanted = [NicRequest(**nic) for nic in nics]
        server_ports.create(tx, instances.get(tx, server_id), wanted, groups, NO_NETWORK_LIMITS)

    await world.store.run(write)
    return server_id


async def test_what_is_asked_for_is_what_its_boot_makes(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        image, red = await make_image(world, alice), await network(world, alice)
        port = await made(world, alice, "port", network_id=red)
        web = await made(world, alice, "security_group", name="web")
        nics = [{"port": port["id"], "tag": "front"}, {"uuid": red, "fixed_ip": "10.1.0.9"}, {"uuid": red.upper()}]
        groups = [{"name": "web"}, {"name": web["id"]}, {"name": "default"}]
        reply = await post(world, alice, image, networks=nics, security_groups=groups)
        assert reply.json()["server"]["security_groups"] == groups
        wanted, in_groups = await asked(world, reply)
        assert wanted == [
            {"port_id": port["id"], "tag": "front"},
            {"network_id": red, "address": "10.1.0.9"},
            {"network_id": red},
        ]
        assert in_groups[0] == web["id"] and len(in_groups) == 2
        assert (await asked(world, await post(world, alice, image, networks="none")))[0] == []
        for usual in ({"networks": "auto"}, {"networks": []}):
            assert (await asked(world, await post(world, alice, image, **usual)))[0] == [{"network_id": red}]
        assert (await asked(world, await post(world, alice, image, "2.1")))[0] == [{"network_id": red}]
        blue = await network(world, alice, "blue")
        for several in ({"networks": "auto"}, {"networks": []}):
            refused = await post(world, alice, image, **several)
            assert (refused.status_code, "Multiple possible networks" in reason(refused)) == (409, True)
        assert (await asked(world, await post(world, alice, image, networks=[{"uuid": blue}])))[0] != []


async def test_auto_makes_the_network_that_is_missing_and_once(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        bob = await world.token("bob", "blue")
        image = await make_image(world, bob)
        assert (await asked(world, await post(world, bob, image, networks=[])))[0] == [], "none is made unasked"
        first, _ = await asked(world, await post(world, bob, image, networks="auto"))
        second, _ = await asked(world, await post(world, bob, image, networks="auto"))
        (there,) = (await world.ask("GET", f"{NET}/networks", token=bob)).json()["networks"]
        assert first == second == [{"network_id": there["id"]}]
        assert (there["name"], there["mtu"]) == ("auto_allocated_network", 1450)
        (subnet,) = (await world.ask("GET", f"{NET}/subnets", token=bob)).json()["subnets"]
        assert (subnet["cidr"], subnet["gateway_ip"], subnet["enable_dhcp"]) == ("10.0.0.0/24", "10.0.0.1", True)


async def outside(world: World, name: str = "outside", cidr: str = "192.0.2.0/24", **more: Any) -> str:
    return await network(world, await world.token(), name, cidr, **{"router:external": True}, **more)


async def test_auto_makes_a_way_out_where_there_is_one(tmp_path: Path) -> None:
    async with networked(tmp_path, physical_networks=("physnet1", "physnet2")) as world:
        bob, admin = await world.token("bob", "blue"), await world.token()
        image = await make_image(world, bob)

        async def routers() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await world.ask("GET", f"{NET}/routers", token=bob)).json()["routers"]
            return found

        (nic,), _ = await asked(world, await post(world, bob, image, networks="auto"))
        assert await routers() == [], "there is no way out"
        first = await outside(world)
        for _ in range(2):
            assert await asked(world, await post(world, bob, image, networks="auto")) == ([nic], [])
        (router,) = await routers()
        gateway = router["external_gateway_info"]
        assert (router["name"], gateway["network_id"]) == ("auto_allocated_router", first)
        port = (await world.ask("GET", f"{NET}/ports?device_id={router['id']}", token=bob)).json()["ports"][0]
        assert (port["network_id"], port["fixed_ips"][0]["ip_address"]) == (nic["network_id"], "10.0.0.1")

        second = await outside(world, "second", "198.51.100.0/24")
        alice = await world.token("alice", "red")
        theirs = await make_image(world, alice)
        await asked(world, await post(world, alice, theirs, networks="auto"))
        assert (await world.ask("GET", f"{NET}/routers", token=alice)).json()["routers"] == [], "which of two?"
        body = {"network": {"is_default": True}}
        taken = await world.ask("PUT", f"{NET}/networks/{second}", token=admin, json=body)
        assert taken.json()["network"]["is_default"] is True
        refused = await world.ask("PUT", f"{NET}/networks/{first}", token=admin, json=body)
        assert refused.json()["NeutronError"]["type"] == "DefaultExternalNetworkExists"
        refused = await world.ask("PUT", f"{NET}/networks/{nic['network_id']}", token=admin, json=body)
        assert "only a network with router:external" in refused.text
        assert (await world.ask("PUT", f"{NET}/networks/{nic['network_id']}", token=bob, json=body)).status_code == 403
        (own,), _ = await asked(world, await post(world, alice, theirs, networks="auto"))
        (router,) = (await world.ask("GET", f"{NET}/routers", token=alice)).json()["routers"]
        assert router["external_gateway_info"]["network_id"] == second and own["network_id"] != nic["network_id"]


async def test_the_topology_of_a_project_is_made_tried_and_taken_away(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        project = (await world.ask("GET", f"{NET}/quotas/tenant", token=alice)).json()["tenant"]["project_id"]
        path = f"{NET}/auto-allocated-topology/{project}"
        for asks in (path, f"{path}?fields=dry-run"):
            refused = await world.ask("GET", asks, token=alice)
            assert (refused.status_code, refused.json()["NeutronError"]["type"]) == (409, "AutoAllocationFailure")
        await outside(world)
        tried = (await world.ask("GET", f"{path}?fields=dry-run", token=alice)).json()["auto_allocated_topology"]
        assert tried == {"id": "dry-run=pass", "project_id": project, "tenant_id": project}
        (only,) = (await world.ask("GET", f"{NET}/networks", token=alice)).json()["networks"]
        assert only["name"] == "outside", "a trial makes nothing"
        assert (await world.ask("GET", path, token=bob)).status_code == 403
        made_id = (await world.ask("GET", path, token=alice)).json()["auto_allocated_topology"]["id"]
        assert (await world.ask("GET", path, token=admin)).json()["auto_allocated_topology"]["id"] == made_id
        port = await made(world, alice, "port", network_id=made_id)
        assert (await world.ask("DELETE", path, token=alice)).status_code == 409, "a port is there"
        assert len((await world.ask("GET", f"{NET}/routers", token=alice)).json()["routers"]) == 1, "all or nothing"
        await world.ask("DELETE", f"{NET}/ports/{port['id']}", token=alice)
        for _ in range(2):
            assert (await world.ask("DELETE", path, token=alice)).status_code == 204
        assert (await world.ask("GET", f"{NET}/routers", token=alice)).json()["routers"] == []
        assert len((await world.ask("GET", f"{NET}/networks", token=alice)).json()["networks"]) == 1


@pytest.mark.parametrize(
    ("server", "version", "status", "words"),
    [
        ({"networks": [{"uuid": UNKNOWN}]}, "2.96", 400, "could not be found"),
        ({"networks": [{"port": UNKNOWN}]}, "2.96", 400, "could not be found"),
        ({"networks": [{"uuid": "red"}]}, "2.96", 400, "not a UUID"),
        ({"networks": [{}]}, "2.96", 400, "neither a network"),
        ({"networks": ["x"]}, "2.96", 400, "must be an object"),
        ({"networks": [{"uuid": UNKNOWN, "colour": 1}]}, "2.96", 400, "'colour'"),
        ({"networks": [{"port": UNKNOWN, "fixed_ip": "10.1.0.9"}]}, "2.96", 400, "cannot be used with port"),
        ({"networks": [{"uuid": UNKNOWN, "fixed_ip": "10.1.0.300"}]}, "2.96", 400, "not an IP address"),
        ({"networks": [{"uuid": UNKNOWN, "tag": "a,b"}]}, "2.96", 400, "neither comma nor slash"),
        ({"networks": [{"uuid": UNKNOWN, "tag": "a"}]}, "2.40", 400, "'tag'"),
        ({"networks": [{"port": UNKNOWN}, {"port": UNKNOWN}]}, "2.96", 400, "once"),
        ({"networks": [{"uuid": UNKNOWN}] * 33}, "2.96", 400, "32 are accepted"),
        ({"networks": "some"}, "2.96", 400, "must be a list of interfaces"),
        ({"networks": "auto"}, "2.36", 400, "2.37"),
        ({}, "2.96", 400, "'networks' is a required property"),
        ({"networks": "none", "security_groups": [{"name": "nowhere"}]}, "2.96", 400, "Unable to find security_group"),
        ({"networks": "none", "security_groups": ["default"]}, "2.96", 400, "object with a name"),
        ({"networks": [{"port": UNKNOWN}], "max_count": 2}, "2.96", 400, "multiple instances"),
        ({"networks": [{"uuid": UNKNOWN, "fixed_ip": "10.1.0.9"}], "max_count": 2}, "2.96", 400, "max_count"),
    ],
)
async def test_what_cannot_be_an_interface_makes_no_server(
    tmp_path: Path, server: dict[str, Any], version: str, status: int, words: str
) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        reply = await post(world, alice, await make_image(world, alice), version, **server)
        assert (reply.status_code, words in reason(reply)) == (status, True), reply.text
        assert (await world.ask("GET", f"{NOVA}/servers", token=alice)).json()["servers"] == []


async def test_networks_and_ports_of_others_and_those_in_use_are_refused(tmp_path: Path) -> None:
    async with networked(tmp_path, quotas=NetworkQuotas(port=4)) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        image, red = await make_image(world, alice), await network(world, alice)
        theirs = await make_image(world, bob)
        port = await made(world, alice, "port", network_id=red)
        used = await made(world, alice, "port", network_id=red, device_id="a-router")
        bare = await made(world, alice, "network", name="bare")
        outside = await network(world, admin, "outside", "192.0.2.0/24", **{"router:external": True})
        for asks, token, its, status, words in (
            ([{"uuid": red}], bob, theirs, 400, "could not be found"),
            ([{"port": port["id"]}], bob, theirs, 400, "could not be found"),
            ([{"port": used["id"]}], alice, image, 409, "still in use"),
            ([{"uuid": bare["id"]}], alice, image, 400, "requires a subnet"),
            ([{"uuid": outside}], alice, image, 400, "external network"),
            ([{"uuid": red}, {"uuid": red}], alice, image, 409, "['port']"),
        ):
            reply = await post(world, token, its, networks=asks)
            assert (reply.status_code, words in reason(reply)) == (status, True), reply.text
        assert (await post(world, alice, image, networks=[{"uuid": red}])).status_code == 202


async def test_a_server_shows_its_addresses_interfaces_and_groups(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        image, red = await make_image(world, alice), await network(world, alice)
        (subnet,) = (await world.ask("GET", f"{NET}/subnets", token=alice)).json()["subnets"]
        outside = await network(world, admin, "outside", "192.0.2.0/24", **{"router:external": True})
        router = await made(world, alice, "router", name="r", external_gateway_info={"network_id": outside})
        interface = {"subnet_id": subnet["id"]}
        path = f"{NET}/routers/{router['id']}/add_router_interface"
        assert (await world.ask("PUT", path, token=alice, json=interface)).status_code == 200
        nic = {"uuid": red, "fixed_ip": "10.1.0.9", "tag": "front"}
        server = await wired(world, await post(world, alice, image, networks=[nic]))
        (port,) = await world.store.read(lambda tx: ports.of_device(tx, server))
        await made(world, alice, "floatingip", floating_network_id=outside, port_id=port["id"])
        shown = (await world.ask("GET", f"{NOVA}/servers/{server}", token=alice)).json()["server"]
        listed = (await world.ask("GET", f"{NOVA}/servers/detail", token=alice)).json()["servers"][0]
        fixed, floating = shown["addresses"]["red"]
        assert shown["addresses"] == listed["addresses"] and list(shown["addresses"]) == ["red"]
        assert fixed == {
            "version": 4,
            "addr": "10.1.0.9",
            "OS-EXT-IPS:type": "fixed",
            "OS-EXT-IPS-MAC:mac_addr": port["mac"],
        }
        assert floating["OS-EXT-IPS:type"] == "floating" and floating["addr"].startswith("192.0.2.")
        assert shown["security_groups"] == listed["security_groups"] == [{"name": "default"}]
        ips = (await world.ask("GET", f"{NOVA}/servers/{server}/ips", token=alice)).json()["addresses"]
        assert ips == {"red": [{"version": 4, "addr": one["addr"]} for one in (fixed, floating)]}
        one = await world.ask("GET", f"{NOVA}/servers/{server}/ips/red", token=alice)
        assert one.json() == ips
        assert (await world.ask("GET", f"{NOVA}/servers/{server}/ips/blue", token=alice)).status_code == 404
        beneath = f"{NOVA}/servers/{server}/os-interface"
        for version, tag in (("2.69", {}), ("2.70", {"tag": "front"})):
            (found,) = (await world.ask("GET", beneath, token=alice, version=version)).json()["interfaceAttachments"]
            assert found == {
                "port_id": port["id"],
                "net_id": red,
                "mac_addr": port["mac"],
                "port_state": "DOWN",
                "fixed_ips": [{"subnet_id": subnet["id"], "ip_address": "10.1.0.9"}],
                **tag,
            }
            alone = await world.ask("GET", f"{beneath}/{port['id']}", token=alice, version=version)
            assert alone.json() == {"interfaceAttachment": found}
        assert (await world.ask("GET", f"{beneath}/{UNKNOWN}", token=alice)).status_code == 404
        bob = await world.token("bob", "blue")
        assert (await world.ask("GET", beneath, token=bob)).status_code == 404
        (group,) = (await world.ask("GET", f"{NOVA}/servers/{server}/os-security-groups", token=alice)).json()[
            "security_groups"
        ]
        assert group["name"] == "default" and group["rules"], "what comes in from its own members"
        assert all(rule["group"]["name"] == "default" and rule["ip_range"] == {} for rule in group["rules"])


async def test_where_there_are_no_networks_a_server_says_so(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        for networks in ("auto", [{"uuid": UNKNOWN}]):
            reply = await post(world, alice, image, networks=networks)
            assert (reply.status_code, "no networks in this cloud" in reason(reply)) == (400, True)
        reply = await post(world, alice, image, networks=[], security_groups=[{"name": "default"}])
        shown = (await world.ask("GET", f"{NOVA}/servers/{reply.json()['server']['id']}", token=alice)).json()["server"]
        assert shown["addresses"] == {} and "security_groups" not in shown
