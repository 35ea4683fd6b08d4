"""Ports in the stories of servers: made before a host is chosen, in force before the guest starts, with it when it
moves, gone with it; and what is undone when a step fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from droveway.agents.kept_plan import MemoryKeptPlan
from droveway.agents.network import HostFacts, NetworkAgent
from droveway.control.engine.saga import ControlSettings
from droveway.control.loops import guest_rows
from droveway.domain.faults import Conflict, NotFound, Unreachable
from droveway.domain.guest_data import GuestKey
from droveway.domain.liveness import State
from droveway.domain.model import Guest, GuestState, SagaKind
from droveway.domain.network.quota import NO_NETWORK_LIMITS, NetworkQuotas
from droveway.domain.network.subnets import Asked, checked
from droveway.domain.network_plan import PlannedPort, device_of
from droveway.domain.reconcile import Remedy
from droveway.domain.service_kinds import NETWORK
from droveway.drivers.clock import SystemClock
from droveway.drivers.network.simulated import SimulatedNetwork, SimulatedPlace
from droveway.ports.bus import Command, Hello
from droveway.ports.replies import Answer
from droveway.store.compute import guest_data, instances, server_ports
from droveway.store.compute.instances import NewInstance
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.fleet.services import Verdict
from droveway.store.network import in_force, networks, ports, subnets
from droveway.store.network.networks import NewNetwork
from droveway.store.network.ports import NewPort
from droveway.store.network.rows import Port
from droveway.store.work import sagas
from tests.control.world import SETTINGS, TINY, Break, DirectBus, NoBus, World

PROJECT = "p"


class NetworkedBus(DirectBus):
    async def serve(self, on_notice: object) -> None:
        await super().serve(on_notice)
        assert isinstance(self._world, NetworkedWorld)
        for host in self._world.network_agents:
            on_notice(Hello(host, "boot", "here", service=NETWORK))  # type: ignore[operator]

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        world = self._world
        assert isinstance(world, NetworkedWorld)
        if service != NETWORK:
            return await super().command(host, command, timeout_s, service)
        if host in world.silent:
            raise Unreachable(f"the network agent of {host} does not answer")
        return await world.network_agents[host].handle(command)


class NetworkedWorld(World):
    """Hosts with network agents; `silent`: those that do not answer."""

    bus_type = NetworkedBus

    def __init__(self, settings: ControlSettings = SETTINGS, hosts: Sequence[str] = ("h1", "h2")) -> None:
        super().__init__(settings, hosts)
        self.places = {host: SimulatedPlace(host, ("physnet1",) if host == "h2" else ()) for host in hosts}
        self.network_agents: dict[str, NetworkAgent] = {}
        self.silent: set[str] = set()
        self.network_id = ""

    async def open(self) -> None:
        await super().open()
        for number, host in enumerate(self.host_names, 1):
            await self.start_network(host, f"192.0.2.{number}", *self.places[host].physical)
        async with asyncio.timeout(10):
            while len(await self.store.read(services.hosts_up, NETWORK)) < len(self.host_names):
                await asyncio.sleep(0.005)

        def write(tx: Tx) -> str:
            network = networks.create(tx, NewNetwork(PROJECT, 1450, "red"), NO_NETWORK_LIMITS)
            subnets.create(tx, network, checked(Asked(4, "10.1.0.0/24")), NO_NETWORK_LIMITS)
            return network["id"]

        self.network_id = await self.store.run(write)

    async def start_network(self, host: str, tunnel: str, *physical: str) -> None:
        async def inline(call: Any) -> None:
            call()

        agent = NetworkAgent(
            host,
            "boot",
            "here",
            SimulatedNetwork(self.places[host]),
            NoBus(),
            MemoryKeptPlan(),
            SystemClock(),
            HostFacts(tunnel, physical),
            inline,
        )
        agent._plan = None
        await agent._make()
        self.network_agents[host] = agent
        assert self.on_notice is not None
        self.on_notice(Hello(host, "boot", "here", service=NETWORK))

    async def boot(self, *nics: NicRequest, on: str | None = None, **more: Any) -> str:
        new = NewInstance(PROJECT, "u", "g", "g", TINY, None, nics=nics, requested_host=on, **more)
        instance_id = await self.store.run(instances.create, new)
        await self.quiet()
        return instance_id

    async def server(self, instance_id: str) -> Any:
        return await self.store.read(instances.get, instance_id, None, deleted=True)

    async def ports_of(self, instance_id: str) -> list[Port]:
        return [one.port for one in await self.store.read(server_ports.of, instance_id)]

    async def port(self, port_id: str) -> Port | None:
        with contextlib.suppress(NotFound):
            return await self.store.read(ports.get, port_id)
        return None

    def planned(self, host: str) -> dict[str, PlannedPort]:
        return {one.id: one for one in self.places[host].plan.ports}

    async def until_planned(self, host: str, *ids: str) -> None:
        async with asyncio.timeout(10):
            while set(self.planned(host)) != set(ids):
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def networked(**settings: Any) -> AsyncIterator[NetworkedWorld]:
    one = NetworkedWorld(replace(SETTINGS, **{"network_patience_s": 0.3, **settings}))
    await one.open()
    try:
        yield one
    finally:
        await one.close()


async def test_a_server_s_ports_are_made_in_force_shown_and_gone_with_it() -> None:
    async with networked() as world:
        given = await world.store.run(
            lambda tx: ports.create(
                tx, networks.row_of(tx, world.network_id), NewPort(PROJECT, name="mine"), NO_NETWORK_LIMITS
            )
        )
        asked = NicRequest(network_id=world.network_id, address="10.1.0.77", tag="front")
        server = await world.boot(NicRequest(port_id=given["id"]), asked)
        row = await world.server(server)
        assert row["vm_state"] == "active", row["fault"]
        one, two = await world.ports_of(server)
        assert one["id"] == given["id"] and two["addresses"][0][1] == "10.1.0.77"
        for port in (one, two):
            assert (port["host"], port["status"], port["device_id"]) == (row["host"], "ACTIVE", server)
            assert port["device_owner"] == "compute:nova"
        plugged = world.fleet.hosts[row["host"]].domains[server].nics
        assert [(nic.port_id, nic.mac, nic.mtu_bytes) for nic in plugged] == [
            (port["id"], port["mac"], 1450) for port in (one, two)
        ]
        await world.until_planned(row["host"], one["id"], two["id"])
        assert world.planned(row["host"])[two["id"]].device == device_of(two["id"])
        shown = (await world.store.read(server_ports.addresses, [server]))[server]
        assert [(each.network, each.address) for each in shown] == [
            ("red", one["addresses"][0][1]),
            ("red", "10.1.0.77"),
        ]
        assert await world.do(server, SagaKind.STOP) == "done"
        assert [port["status"] for port in await world.ports_of(server)] == ["DOWN", "DOWN"]
        assert await world.do(server, SagaKind.START) == "done"
        assert [nic.port_id for nic in world.fleet.hosts[row["host"]].domains[server].nics] == [one["id"], two["id"]]
        assert await world.do(server, SagaKind.DELETE) == "done"
        assert await world.port(two["id"]) is None, "made for the server"
        left = await world.port(given["id"])
        assert left is not None
        assert (left["device_id"], left["host"], left["status"], left["device_owner"]) == ("", "", "DOWN", "")
        await world.until_planned(row["host"])
        assert await world.ports_of(server) == []
        await world.check(server)


async def test_a_guest_starts_only_once_its_ports_are_in_force() -> None:
    async with networked() as world:
        for place in world.places.values():
            place.hangs.clear()
        new = NewInstance(PROJECT, "u", "g", "g", TINY, None, nics=(NicRequest(network_id=world.network_id),))
        server = await world.store.run(instances.create, new)
        await asyncio.sleep(0.1)
        assert await world.runs_on(server) == [] and (await world.server(server))["vm_state"] == "building"
        for place in world.places.values():
            place.hangs.set()
        await world.quiet()
        assert (await world.server(server))["vm_state"] == "active"


async def test_where_a_port_cannot_be_made_another_host_is_tried() -> None:
    async with networked() as world:
        world.places["h1"].troubles["network", world.network_id] = "no such device"
        world.places["h2"].troubles["network", world.network_id] = "no such device"
        server = await world.boot(NicRequest(network_id=world.network_id))
        row = await world.server(server)
        assert row["vm_state"] == "error" and "no such device" in row["fault"]["message"]
        assert row["host"] is None and await world.ports_of(server) == []
        assert await world.store.read(lambda tx: ports.of_device(tx, server)) == [], "made ports are gone again"
        await world.check(server)
        del world.places["h2"].troubles["network", world.network_id]
        server = await world.boot(NicRequest(network_id=world.network_id))
        row = await world.server(server)
        assert (row["vm_state"], row["host"]) == ("active", "h2"), row["fault"]
        (port,) = await world.ports_of(server)
        assert port["host"] == "h2"
        await world.until_planned("h1")
        await world.check(server)


async def test_an_agent_that_does_not_answer_is_waited_for_so_long_and_no_longer() -> None:
    async with networked(boot_tries=1) as world:
        world.silent.update(("h1", "h2"))
        server = await world.boot(NicRequest(network_id=world.network_id))
        row = await world.server(server)
        assert row["vm_state"] == "error"
        assert "its network agent has not put the ports of the server in force" in row["fault"]["message"]
        assert await world.store.read(lambda tx: ports.of_device(tx, server)) == []


async def test_a_host_without_a_network_agent_takes_no_server_with_an_interface() -> None:
    async with networked() as world:
        down = [Verdict(host, NETWORK, State.DEAD, "killed", 1) for host in ("h1", "h2")]
        await world.store.run(services.record_verdicts, down)
        server = await world.boot(NicRequest(network_id=world.network_id))
        row = await world.server(server)
        assert row["vm_state"] == "error"
        assert "h2: no network agent is up there" in row["fault"]["message"], row["fault"]
        assert (await world.server(await world.boot()))["vm_state"] == "active", "one without may be there"


async def test_a_given_port_that_is_in_use_or_was_deleted_fails_the_boot_and_stays_as_it_was() -> None:
    async with networked() as world:
        first = await world.boot(NicRequest(network_id=world.network_id))
        (port,) = await world.ports_of(first)
        second = await world.boot(NicRequest(port_id=port["id"]))
        fault = (await world.server(second))["fault"]
        assert f"Port {port['id']} is still in use" in fault["message"]
        assert (await world.port(port["id"]))["device_id"] == first  # type: ignore[index]
        await world.store.run(ports.remove, port["id"])
        third = await world.boot(NicRequest(port_id=port["id"]))
        assert "could not be found" in (await world.server(third))["fault"]["message"]
        assert await world.ports_of(first) == [], "its interface went with its port"
        assert await world.do(first, SagaKind.HARD_REBOOT) == "done"
        await world.check(first)


async def test_the_quota_is_that_of_the_moment_when_ports_are_made() -> None:
    async with networked(network_quotas=NetworkQuotas(port=1)) as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        assert "Quota exceeded for resources: ['port']" in (await world.server(server))["fault"]["message"]


@pytest.mark.parametrize("how", [Break.REFUSED, Break.ANSWER_LOST, Break.CONTROL_KILLED, Break.DOUBLED])
@pytest.mark.parametrize("at", [1, 2])
async def test_whatever_breaks_at_a_boot_no_port_is_left_and_none_is_made_twice(how: Break, at: int) -> None:
    async with networked() as world:
        world.at, world.breaks = at, how
        server = await world.boot(NicRequest(network_id=world.network_id))
        row = await world.server(server)
        assert row["vm_state"] == "active", row["fault"]
        there = await world.store.read(lambda tx: ports.of_device(tx, server))
        assert [port["id"] for port in there] == [port["id"] for port in await world.ports_of(server)]
        assert [port["host"] for port in there] == [row["host"]]
        await world.check(server)


async def test_ports_move_with_their_guest_and_keep_their_macs() -> None:
    async with networked() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        source = (await world.server(server))["host"]
        destination = "h2" if source == "h1" else "h1"
        (before,) = await world.ports_of(server)
        world.places[source].connections[before["id"]] = "tcp established"
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
        assert world.places[destination].connections == {before["id"]: "tcp established"}
        (after,) = await world.ports_of(server)
        assert (await world.server(server))["host"] == after["host"] == destination
        assert (after["moving_to"], after["mac"], after["addresses"]) == ("", before["mac"], before["addresses"])
        assert [nic.mac for nic in world.fleet.hosts[destination].domains[server].nics] == [before["mac"]]
        await world.until_planned(destination, after["id"])
        await world.until_planned(source)
        await world.check(server)


async def test_a_network_agent_that_dies_during_a_move_keeps_no_guest_waiting() -> None:
    async with networked() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        source = (await world.server(server))["host"]
        world.silent.add(source)
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
        (port,) = await world.ports_of(server)
        assert port["host"] == (await world.server(server))["host"] != source


async def test_a_destination_that_cannot_have_the_port_gets_no_guest() -> None:
    async with networked() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        source = (await world.server(server))["host"]
        destination = "h2" if source == "h1" else "h1"
        world.places[destination].troubles["network", world.network_id] = "no such device"
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "undone"
        (port,) = await world.ports_of(server)
        assert (port["host"], port["moving_to"]) == (source, "")
        assert await world.runs_on(server) == [source]
        await world.until_planned(destination)
        await world.check(server)


@pytest.mark.parametrize("how", [Break.REFUSED, Break.ANSWER_LOST, Break.CONTROL_KILLED, Break.REFUSED_AFTER_ACTING])
@pytest.mark.parametrize("at", range(3, 9))
async def test_whatever_breaks_at_a_move_the_port_is_where_the_guest_is(how: Break, at: int) -> None:
    async with networked() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        world.at, world.breaks = at, how
        with contextlib.suppress(Conflict):
            await world.do(server, SagaKind.LIVE_MIGRATION)
        (port,) = await world.ports_of(server)
        host = (await world.server(server))["host"]
        assert (port["host"], port["moving_to"]) == (host, "")
        assert await world.runs_on(server) == [host]
        await world.until_planned(host, port["id"])
        await world.check(server)


async def test_the_documents_of_a_server_are_on_its_drive_alone_and_gone_with_it() -> None:
    async with networked() as world:
        key, data = GuestKey("k", "ssh", "ssh-ed25519 AAAA me\n"), base64.b64encode(b"#!/bin/sh\n# secret").decode()
        nic = NicRequest(network_id=world.network_id, tag="front")
        server = await world.boot(nic, config_drive=True, key=key, user_data=data)
        (port,) = await world.ports_of(server)
        drive = world.fleet.stores["shared"].drives[server]
        files = {path: document.data for document in drive for path in document.paths}
        assert files["ec2/latest/user-data"] == files["openstack/latest/user_data"] == b"#!/bin/sh\n# secret"
        told = msgspec.json.decode(files["openstack/latest/meta_data.json"])
        assert told["public_keys"] == {"k": "ssh-ed25519 AAAA me"}
        assert told["devices"][0]["mac"] == port["mac"] and told["devices"][0]["tags"] == ["front"]
        wired = msgspec.json.decode(files["openstack/latest/network_data.json"])
        assert [link["vif_id"] for link in wired["links"]] == [port["id"]]
        (saga,) = await world.store.read(sagas.listing, limit=9, only_open=False)
        assert data not in str(saga) and "secret" not in str(saga)
        assert await world.do(server, SagaKind.DELETE) == "done"
        assert world.fleet.stores["shared"].drives == {}
        left = await world.store.read(lambda tx: guest_data.facts(tx, instances.get(tx, server, deleted=True)))
        assert (left.user_data, left.key) == (None, None)


async def test_a_server_on_a_flat_network_goes_where_that_network_is_and_no_further() -> None:
    async with networked() as world:

        def write(tx: Tx) -> str:
            flat = networks.create(tx, NewNetwork(PROJECT, 1500, physical_network="physnet1"), NO_NETWORK_LIMITS)
            subnets.create(tx, flat, checked(Asked(4, "10.9.0.0/24")), NO_NETWORK_LIMITS)
            return flat["id"]

        flat_id = await world.store.run(write)
        async with asyncio.timeout(10):
            while not (await world.store.read(in_force.carriers, ["physnet1"], has_vxlan=False))[
                "physical network physnet1"
            ]:
                await asyncio.sleep(0.005)
        for _ in range(2):  # h1 is as good but for that
            server = await world.boot(NicRequest(network_id=flat_id))
            assert (await world.server(server))["host"] == "h2"
        refused = await world.boot(NicRequest(network_id=flat_id), on="h1")
        assert "it has no physical network physnet1" in (await world.server(refused))["fault"]["message"]
        moved = await world.store.run(instances.intend, server, SagaKind.LIVE_MIGRATION, {"destination": "h1"})
        await world.quiet()
        assert (await world.server(server))["host"] == "h2"
        assert "physnet1" in (await world.store.read(sagas.get, moved))["error"]


async def test_ports_say_whether_their_guest_was_found_to_run() -> None:
    """It ended by itself; or a start that was said to have failed had begun after all."""
    async with networked() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        for state, remedy, status in (
            (GuestState.SHUTOFF, Remedy.RECORD_STOPPED, "DOWN"),
            (GuestState.RUNNING, Remedy.RECORD_RUNNING, "ACTIVE"),
        ):
            seen, guest = await world.server(server), Guest(server, state)
            facts = {"seen": seen, "found": remedy, "guest": guest, "boot_id": "boot", "pause_us": 0}
            await world.store.run(functools.partial(guest_rows.apply, **facts))
            assert [port["status"] for port in await world.ports_of(server)] == [status]
