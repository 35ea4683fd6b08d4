"""Interfaces, addresses and groups of a server that is there: what may be asked for, and what is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import update

from droveway.domain.model import VmState
from droveway.domain.network.quota import NO_NETWORK_LIMITS, NetworkQuotas
from droveway.store.compute import instances, server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.schema import sagas as saga_table
from droveway.store.work import sagas
from tests.api.test_server_networks import NET, UNKNOWN, made, network, networked, post, wired
from tests.api.world import NOVA, World, in_world, make_image, reason


def _end(tx: Tx) -> None:
    """Whatever is under way."""
    tx.execute(update(saga_table).where(saga_table.c.ended.is_(False)).values(ended=True, status="done"))


class Scene:
    """A server of alice's with an interface on `red`; sagas about interfaces end at once as `ends` says."""

    def __init__(self, world: World, token: str) -> None:
        self.world, self.token = world, token
        self.ends = (True, "")
        self.server = self.red = ""
        world.prechecks = self._carry_out

    async def build(self) -> None:
        self.red = await network(self.world, self.token)
        image = await make_image(self.world, self.token)
        self.server = await wired(self.world, await post(self.world, self.token, image, networks=[{"uuid": self.red}]))

        def booted(tx: Tx) -> None:
            instances.set_idle(tx, self.server, vm_state=VmState.ACTIVE.value, host="h1")
            _end(tx)

        await self.world.store.run(booted)

    async def _carry_out(self, saga_id: str) -> tuple[bool, str]:
        """What the story writes about ports."""
        saga = await self.world.store.read(sagas.get, saga_id)

        def write(tx: Tx) -> None:
            if "port_id" in saga["params"]:
                server_ports.release_one(tx, self.server, saga["params"]["port_id"])
            else:
                wanted = msgspec.convert(saga["params"]["nic"], NicRequest)
                server_ports.create(tx, instances.get(tx, self.server), (wanted,), (), NO_NETWORK_LIMITS)

        if self.ends[0]:
            await self.world.store.run(write)
        await self.world.store.run(_end)
        return self.ends

    async def attach(self, version: str = "2.96", token: str = "", **asked: Any) -> httpx.Response:
        body = {"interfaceAttachment": asked}
        path = f"{NOVA}/servers/{self.server}/os-interface"
        return await self.world.ask("POST", path, token=token or self.token, version=version, json=body)

    async def act(self, action: str, version: str = "2.1", **asked: Any) -> httpx.Response:
        path = f"{NOVA}/servers/{self.server}/action"
        return await self.world.ask("POST", path, token=self.token, version=version, json={action: asked})

    async def ports(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (
            await self.world.ask("GET", f"{NET}/ports?device_id={self.server}", token=self.token)
        ).json()["ports"]
        return found


@asynccontextmanager
async def scene(tmp_path: Path, **more: Any) -> AsyncIterator[Scene]:
    async with networked(tmp_path, **more) as world:
        one = Scene(world, await world.token("alice", "red"))
        await one.build()
        yield one


async def test_a_port_or_a_network_becomes_an_interface_and_is_one_no_longer(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        world, alice = one.world, one.token
        port = await made(world, alice, "port", network_id=one.red)
        reply = await one.attach(port_id=port["id"].upper(), tag="back")
        assert reply.status_code == 200, reply.text
        assert reply.json()["interfaceAttachment"] == {
            "port_id": port["id"],
            "net_id": one.red,
            "mac_addr": port["mac_address"],
            "port_state": "DOWN",
            "fixed_ips": port["fixed_ips"],
            "tag": "back",
        }
        reply = await one.attach("2.49", net_id=one.red, fixed_ips=[{"ip_address": "10.1.0.77"}], tag="x")
        made_one = reply.json()["interfaceAttachment"]
        assert made_one["fixed_ips"][0]["ip_address"] == "10.1.0.77" and "tag" not in made_one
        assert (await one.attach("2.1")).status_code == 200, "the one network of the project"
        assert len(await one.ports()) == 4
        beneath = f"{NOVA}/servers/{one.server}/os-interface"
        for port_id in (port["id"].upper(), made_one["port_id"]):
            reply = await world.ask("DELETE", f"{beneath}/{port_id}", token=alice)
            assert (reply.status_code, reply.content) == (202, b"")
        assert len(await one.ports()) == 2
        again = await world.ask("DELETE", f"{beneath}/{port['id']}", token=alice)
        assert (again.status_code, "has no interface with the port" in reason(again)) == (404, True)
        left = (await world.ask("GET", f"{NET}/ports/{port['id']}", token=alice)).json()["port"]
        assert (left["device_id"], left["device_owner"]) == ("", "")


async def test_what_cannot_be_attached_says_why(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        world, alice = one.world, one.token
        bob, admin = await world.token("bob", "blue"), await world.token()
        port = await made(world, alice, "port", network_id=one.red)
        used = await made(world, alice, "port", network_id=one.red, device_id="a-router")
        theirs = await made(world, bob, "port", network_id=await network(world, bob, "blue"))
        bare = await made(world, alice, "network", name="bare")
        outside = await network(world, admin, "outside", "192.0.2.0/24", **{"router:external": True})
        (mine,) = await one.ports()
        for asked, status, words in (
            ({"port_id": UNKNOWN}, 404, "could not be found"),
            ({"net_id": UNKNOWN}, 404, "could not be found"),
            ({"port_id": theirs["id"]}, 404, "could not be found"),
            ({"port_id": used["id"]}, 409, "still in use: a-router has it"),
            ({"port_id": mine["id"]}, 409, "is an interface of this server"),
            ({"net_id": bare["id"]}, 400, "requires a subnet"),
            ({"net_id": outside}, 400, "external network"),
            ({"net_id": one.red, "port_id": port["id"]}, 400, "both network_id and port_id"),
            ({"fixed_ips": [{"ip_address": "10.1.0.9"}]}, 400, "Must input network_id"),
            ({"net_id": one.red, "fixed_ips": []}, 400, "one address"),
            ({"net_id": one.red, "fixed_ips": [{"ip_address": "x"}]}, 400, "ip_address"),
            ({"net_id": "red"}, 400, "UUID"),
            ({"colour": 1}, 400, "'colour'"),
        ):
            reply = await one.attach(**asked)
            assert (reply.status_code, words in reason(reply)) == (status, True), (asked, reply.text)
        await world.ask("PUT", f"{NET}/networks/{one.red}", token=admin, json={"network": {"shared": True}})
        guest = await made(world, bob, "port", network_id=one.red)
        reply = await one.attach(port_id=guest["id"])
        assert (reply.status_code, "it is another project's" in reason(reply)) == (404, True), "though it is seen"
        assert "'tag'" in reason(await one.attach("2.48", net_id=one.red, tag="x"))
        assert (await one.attach(token=bob, net_id=one.red)).status_code == 404
        rita = await world.token("rita", "red")
        assert (await one.attach(token=rita, net_id=one.red)).status_code == 403
        one.ends = (False, "h1: it has not let go")
        reply = await one.attach(net_id=one.red)
        assert (reply.status_code, reason(reply)) == (
            409,
            "Failed to attach the interface: h1: it has not let go",
        )
        path = f"{NOVA}/servers/{one.server}/os-interface/{mine['id']}"
        reply = await world.ask("DELETE", path, token=alice)
        assert (reply.status_code, reason(reply)) == (
            409,
            "Failed to detach the interface: h1: it has not let go",
        )
        assert (await world.ask("DELETE", path, token=bob)).status_code == 404


async def test_a_port_that_is_deleted_is_taken_from_the_guest(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        (port,) = await one.ports()
        for _ in range(2):
            made_one = await made(one.world, one.token, "port", network_id=one.red)
            await one.world.ask("DELETE", f"{NET}/ports/{made_one['id']}", token=one.token)
        open_ones = await one.world.store.read(sagas.listing, limit=9, only_open=True)
        assert open_ones == [], "of nobody's port nobody is told"
        reply = await one.world.ask("DELETE", f"{NET}/ports/{port['id']}", token=one.token)
        assert reply.status_code == 204, reply.text
        (saga,) = await one.world.store.read(sagas.listing, limit=9, only_open=True)
        assert (saga["kind"], saga["params"]["nic"]["mac"]) == ("detach_interface", port["mac_address"])


async def test_attaching_stays_within_the_quota_and_needs_a_server_that_is_whole(tmp_path: Path) -> None:
    async with scene(tmp_path, quotas=NetworkQuotas(port=2)) as one:
        reply = await one.attach(net_id=one.red)
        assert "['port']" in reason(reply) and reply.status_code == 409
        await one.world.store.run(instances.set_, one.server, vm_state="error")
        port = (await one.ports())[0]["id"]
        path = f"{NOVA}/servers/{one.server}/os-interface/{port}"
        reply = await one.world.ask("DELETE", path, token=one.token)
        assert (reply.status_code, "it must be active or stopped" in reason(reply)) == (409, True)


async def test_without_networks_there_is_nothing_to_attach(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        server = (await post(world, alice, image, networks="none")).json()["server"]["id"]
        path = f"{NOVA}/servers/{server}/os-interface"
        reply = await world.ask("POST", path, token=alice, json={"interfaceAttachment": {"net_id": UNKNOWN}})
        assert (reply.status_code, "no networks in this cloud" in reason(reply)) == (400, True)
        reply = await world.ask("DELETE", f"{path}/{UNKNOWN}", token=alice)
        assert reply.status_code == 400


async def test_fixed_addresses_come_and_go_until_2_43(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        assert (await one.act("addFixedIp", networkId=one.red)).status_code == 202
        (port,) = await one.ports()
        first, second = (each["ip_address"] for each in port["fixed_ips"])
        assert (await one.act("removeFixedIp", "2.43", address=first)).status_code == 202
        assert [each["ip_address"] for each in (await one.ports())[0]["fixed_ips"]] == [second]
        for name, asked, status, words in (
            ("removeFixedIp", {"address": first}, 400, "no interface of this server has it"),
            ("removeFixedIp", {"address": "x"}, 400, "address"),
            ("addFixedIp", {"networkId": UNKNOWN}, 400, "not one of the networks of this server"),
            ("addFixedIp", {}, 400, "'networkId' is a required property"),
        ):
            reply = await one.act(name, **asked)
            assert (reply.status_code, words in reason(reply)) == (status, True), reply.text
        reply = await one.act("addFixedIp", "2.44", networkId=one.red)
        assert (reply.status_code, "at this microversion" in reason(reply)) == (404, True)


async def test_floating_addresses_lead_to_a_server_and_away_from_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        world, alice, admin = one.world, one.token, await one.world.token()
        outside = await network(world, admin, "outside", "192.0.2.0/24", **{"router:external": True})
        floating = await made(world, alice, "floatingip", floating_network_id=outside)
        address = floating["floating_ip_address"]
        reply = await one.act("addFloatingIp", address=address)
        assert (reply.status_code, "is not reachable from subnet" in reason(reply)) == (400, True)
        router = await made(world, alice, "router", name="r", external_gateway_info={"network_id": outside})
        (subnet,) = (await world.ask("GET", f"{NET}/subnets?network_id={one.red}", token=alice)).json()["subnets"]
        path = f"{NET}/routers/{router['id']}/add_router_interface"
        assert (await world.ask("PUT", path, token=alice, json={"subnet_id": subnet["id"]})).status_code == 200
        (port,) = await one.ports()
        fixed = port["fixed_ips"][0]["ip_address"]
        assert (await one.act("addFloatingIp", address=address, fixed_address=fixed)).status_code == 202
        found = (await world.ask("GET", f"{NET}/floatingips", token=alice)).json()["floatingips"][0]
        assert (found["port_id"], found["fixed_ip_address"]) == (port["id"], fixed)
        assert (await one.act("removeFloatingIp", address=address)).status_code == 202
        for name, asked, status, words in (
            ("removeFloatingIp", {"address": address}, 409, "is not associated with this server"),
            ("removeFloatingIp", {"address": "192.0.2.250"}, 404, "this project has none"),
            ("addFloatingIp", {"address": "192.0.2.250"}, 404, "this project has none"),
            ("addFloatingIp", {"address": address, "fixed_address": "10.1.0.250"}, 400, "no such fixed IP address"),
        ):
            reply = await one.act(name, **asked)
            assert (reply.status_code, words in reason(reply)) == (status, True), reply.text
        assert (await one.act("removeFloatingIp", "2.44", address=address)).status_code == 404


async def test_groups_are_added_to_every_interface_and_removed(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        web = await made(one.world, one.token, "security_group", name="web")
        port = await made(one.world, one.token, "port", network_id=one.red)
        open_port = await made(one.world, one.token, "port", network_id=one.red, port_security_enabled=False)
        for each in (port, open_port):
            assert (await one.attach(port_id=each["id"])).status_code == 200
        for version, name in (("2.96", "web"), ("2.1", web["id"])):
            assert (await one.act("addSecurityGroup", version, name=name)).status_code == 202
        has = [web["id"] in each["security_groups"] for each in await one.ports()]
        assert sorted(has) == [False, True, True], "all but the one without port security"
        assert (await one.act("removeSecurityGroup", name="web")).status_code == 202
        assert not any(web["id"] in each["security_groups"] for each in await one.ports())
        for name, group, status, words in (
            ("removeSecurityGroup", "web", 404, "is not associated with this server"),
            ("addSecurityGroup", "nowhere", 404, "is not found in project"),
        ):
            reply = await one.act(name, name=group)
            assert (reply.status_code, words in reason(reply)) == (status, True), reply.text
        await made(one.world, one.token, "security_group", name="web")
        assert "Use an ID to be more specific" in reason(await one.act("addSecurityGroup", name="web"))
