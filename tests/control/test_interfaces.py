"""Interfaces that a server gets and gives back: with a guest that runs and with one that does not, and whatever breaks
in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from droveway.domain.faults import Conflict
from droveway.domain.model import GuestState, SagaKind
from droveway.domain.network.quota import NO_NETWORK_LIMITS, NetworkQuotas
from droveway.store.compute import instances
from droveway.store.compute.server_ports import NicRequest
from droveway.store.network import networks, ports
from droveway.store.network.ports import NewPort
from droveway.store.network.rows import Port
from droveway.store.work import sagas
from tests.control.test_ports import PROJECT, NetworkedWorld, networked
from tests.control.world import Break

ATTACH, DETACH = SagaKind.ATTACH_INTERFACE, SagaKind.DETACH_INTERFACE


def patient(**settings: Any) -> AbstractAsyncContextManager[NetworkedWorld]:
    """A busy machine puts nothing in force within the third of a second that other tests wait."""
    return networked(network_patience_s=30.0, **settings)


async def given_port(world: NetworkedWorld, **more: Any) -> Port:
    def write(tx: Any) -> Port:
        return ports.create(tx, networks.row_of(tx, world.network_id), NewPort(PROJECT, **more), NO_NETWORK_LIMITS)

    return await world.store.run(write)


async def change(world: NetworkedWorld, server: str, kind: SagaKind, **params: Any) -> tuple[str, str]:
    """How it ended, and why."""
    saga_id = await world.store.run(instances.intend, server, kind, params)
    await world.quiet()
    saga = await world.store.read(sagas.get, saga_id)
    return saga["status"], saga["error"]


async def attach(world: NetworkedWorld, server: str, **asked: Any) -> tuple[str, str]:
    return await change(world, server, ATTACH, nic=msgspec.to_builtins(NicRequest(**asked)))


async def detach(world: NetworkedWorld, server: str, port_id: str) -> tuple[str, str]:
    return await change(world, server, DETACH, port_id=port_id)


def plugged(world: NetworkedWorld, server: str, host: str) -> list[str]:
    return [nic.port_id for nic in world.fleet.hosts[host].domains[server].nics]


async def agree(world: NetworkedWorld, server: str) -> list[str]:
    """The interfaces of the server, which rows, guest and the plan of its host tell alike; its ports are nobody
    else's."""
    row = await world.server(server)
    there = await world.ports_of(server)
    ids = [port["id"] for port in there]
    assert plugged(world, server, row["host"]) == ids
    assert {port["host"] for port in there} <= {row["host"]}
    assert await world.store.read(lambda tx: {one["id"] for one in ports.of_device(tx, server)}) == set(ids)
    await world.until_planned(row["host"], *ids)
    await world.check(server)
    return ids


async def test_a_running_server_gets_what_was_made_and_what_was_given_and_keeps_it() -> None:
    async with patient() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        first = (await world.ports_of(server))[0]["id"]
        given, made_id = await given_port(world), "33333333-0000-4000-8000-000000000003"
        assert await attach(world, server, port_id=given["id"], tag="back") == ("done", "")
        assert await attach(world, server, network_id=world.network_id, address="10.1.0.99", made_id=made_id) == (
            "done",
            "",
        )
        assert await agree(world, server) == [first, given["id"], made_id]
        row = await world.server(server)
        one = (await world.ports_of(server))[2]
        assert (one["addresses"][0][1], one["status"], one["host"]) == ("10.1.0.99", "ACTIVE", row["host"])
        assert row["task_state"] is None and row["fault"] is None
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
        assert await agree(world, server) == [first, given["id"], made_id]
        assert await world.do(server, SagaKind.HARD_REBOOT) == "done"
        assert await agree(world, server) == [first, given["id"], made_id]
        for port_id in (first, given["id"], made_id):
            assert await detach(world, server, port_id) == ("done", "")
        assert await agree(world, server) == []
        assert await world.port(first) is None and await world.port(made_id) is None, "they were made for it"
        left = await world.port(given["id"])
        assert left is not None and (left["device_id"], left["host"], left["status"]) == ("", "", "DOWN")
        assert await attach(world, server, port_id=given["id"]) == ("done", ""), "once more"
        assert await agree(world, server) == [given["id"]]


async def test_a_server_that_is_stopped_has_it_when_it_starts() -> None:
    async with patient() as world:
        server = await world.boot()
        assert await world.do(server, SagaKind.STOP) == "done"
        host = (await world.server(server))["host"]
        world.gone_from = {host: 0}
        given = await given_port(world)
        assert await attach(world, server, port_id=given["id"]) == ("done", ""), "its host is not waited for"
        world.gone_from = {}
        (port,) = await world.ports_of(server)
        assert (port["host"], port["status"]) == (host, "DOWN")
        assert await world.do(server, SagaKind.START) == "done"
        assert await agree(world, server) == [given["id"]]
        assert await world.do(server, SagaKind.STOP) == "done"
        assert await detach(world, server, given["id"]) == ("done", "")
        assert await world.do(server, SagaKind.START) == "done"
        assert await agree(world, server) == []


@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("is_made", [True, False])
async def test_whatever_breaks_at_an_attachment_it_is_whole_or_not_there(breaks: Break, is_made: bool) -> None:
    async with patient() as world:
        server = await world.boot()
        given = await given_port(world)
        asked = {"network_id": world.network_id, "made_id": "m"} if is_made else {"port_id": given["id"]}
        world.commands.clear()
        world.at, world.breaks = 1, breaks
        status, error = await attach(world, server, **asked)
        world.at = 0
        refused = breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING}
        assert (status, bool(error)) == (("undone", True) if refused else ("done", False))
        port_id = "m" if is_made else given["id"]
        assert await agree(world, server) == ([] if refused else [port_id])
        port = await world.port(port_id)
        if refused and is_made:
            assert port is None, "nothing is left of it"
        elif refused:
            assert port is not None and (port["device_id"], port["host"]) == ("", "")
        assert [verb for _, verb in world.commands][:1] == ["Plug"]


@pytest.mark.parametrize("breaks", Break)
async def test_whatever_breaks_at_a_detachment_it_is_gone_or_whole(breaks: Break) -> None:
    async with patient() as world:
        server = await world.boot(NicRequest(network_id=world.network_id), NicRequest(network_id=world.network_id))
        first, second = (port["id"] for port in await world.ports_of(server))
        world.commands.clear()
        world.at, world.breaks = 1, breaks
        status, _ = await detach(world, server, first)
        world.at = 0
        refused = breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING}
        assert status == ("undone" if refused else "done")
        assert sorted(plugged(world, server, (await world.server(server))["host"])) == sorted(
            [first, second] if refused else [second]
        )
        assert [port["id"] for port in await world.ports_of(server)] == ([first, second] if refused else [second])
        assert (await world.port(first) is None) is not refused
        await world.check(server)


async def test_a_guest_that_does_not_let_go_keeps_its_interface_and_the_reason_is_said() -> None:
    async with patient() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        (port,) = await world.ports_of(server)
        world.fleet.keeps_nics.add(server)
        status, error = await detach(world, server, port["id"])
        assert status == "undone"
        assert f"has not let go of the interface {port['mac']} (port {port['id']}) within 20 s" in error
        assert await agree(world, server) == [port["id"]]
        world.fleet.keeps_nics.clear()
        assert await detach(world, server, port["id"]) == ("done", "")


async def test_what_the_guest_does_not_let_go_of_when_an_attachment_is_undone_it_has() -> None:
    async with patient() as world:
        server = await world.boot()
        given = await given_port(world)
        world.fleet.keeps_nics.add(server)
        world.commands.clear()
        world.at, world.breaks = 1, Break.REFUSED_AFTER_ACTING
        assert await attach(world, server, port_id=given["id"]) == ("done", "")
        assert await agree(world, server) == [given["id"]]


async def test_several_wait_for_their_turn_and_one_port_is_attached_once() -> None:
    async with patient() as world:
        one, other = await world.boot(), await world.boot()
        shared, own = await given_port(world), await given_port(world)
        ids = [
            await world.store.run(
                instances.intend, server, ATTACH, {"nic": msgspec.to_builtins(NicRequest(port_id=port["id"]))}
            )
            for server, port in ((one, shared), (one, own), (one, shared), (other, shared))
        ]
        await world.quiet()
        ended = [await world.store.read(sagas.get, each) for each in ids]
        states = [saga["status"] for saga in ended]
        assert sorted(states) == ["done", "done", "undone", "undone"], states
        holder = (await world.port(shared["id"]))["device_id"]  # type: ignore[index]
        assert {port["id"] for port in await world.ports_of(holder)} >= {shared["id"]}
        lost = [saga["error"] for saga in ended if saga["status"] == "undone"]
        assert all("is still in use" in why or "an interface of this server already" in why for why in lost), lost
        assert own["id"] in await agree_of(world, one)


async def agree_of(world: NetworkedWorld, server: str) -> list[str]:
    host = (await world.server(server))["host"]
    ids = [port["id"] for port in await world.ports_of(server)]
    assert plugged(world, server, host) == ids
    return ids


async def test_too_many_are_refused_and_other_wishes_wait_for_none() -> None:
    async with patient() as world:
        server = await world.boot()
        world.silent.update(world.host_names)  # the network agents
        params = {"nic": {"network_id": world.network_id}}
        first = await world.store.run(instances.intend, server, ATTACH, params)
        for _ in range(15):
            await world.store.run(instances.intend, server, ATTACH, params)
        with pytest.raises(Conflict, match="16 changes of its interfaces and volumes wait for their turn"):
            await world.store.run(instances.intend, server, ATTACH, params)
        with pytest.raises(Conflict, match="while its attach_interface is under way"):
            await world.store.run(instances.intend, server, SagaKind.STOP, {})
        await world.store.run(instances.intend, server, SagaKind.DELETE, {})
        await world.quiet()
        assert (await world.store.read(sagas.get, first))["status"] == "undone"
        ended = await world.store.read(sagas.listing, limit=99, only_open=False)
        whys = [saga["error"] for saga in ended if saga["kind"] == ATTACH and saga["id"] != first]
        assert whys == ["instance g is deleting by now"] * 15, "nothing more is begun for it"
        assert (await world.server(server))["deleted"]
        assert await world.store.read(lambda tx: ports.of_device(tx, server)) == []


async def test_without_quota_or_where_the_host_cannot_have_it_nothing_is_left() -> None:
    async with patient(network_quotas=NetworkQuotas(port=2)) as world:  # one is that of DHCP
        server = await world.boot(NicRequest(network_id=world.network_id))
        status, error = await attach(world, server, network_id=world.network_id)
        assert status == "undone" and "Quota exceeded for resources: ['port']" in error
        (port,) = await world.ports_of(server)
        assert await detach(world, server, port["id"]) == ("done", "")
        host = (await world.server(server))["host"]
        world.places[host].troubles["network", world.network_id] = "no such device"
        status, error = await attach(world, server, network_id=world.network_id)
        assert status == "undone" and "no such device" in error
        assert await world.store.read(lambda tx: ports.of_device(tx, server)) == []
        assert await agree(world, server) == []


async def test_a_host_that_is_away_holds_up_no_deletion() -> None:
    async with patient() as world:
        server = await world.boot(NicRequest(network_id=world.network_id))
        (port,) = await world.ports_of(server)
        host = (await world.server(server))["host"]
        world.commands.clear()
        world.gone_from = {host: 1}
        await world.store.run(instances.intend, server, DETACH, {"port_id": port["id"]})
        await asyncio.sleep(0.2)  # beyond its patience: it is to be undone, and the host does not answer
        assert [port["id"] for port in await world.ports_of(server)] == [port["id"]]
        await world.store.run(instances.intend, server, SagaKind.DELETE, {})
        await world.quiet()
        assert (await world.server(server))["deleted"] and await world.port(port["id"]) is None


async def test_a_guest_gives_back_the_device_of_a_port_that_was_deleted() -> None:
    async with patient() as world:
        server = await world.boot(NicRequest(network_id=world.network_id), NicRequest(network_id=world.network_id))
        first, second = await world.ports_of(server)
        host = (await world.server(server))["host"]
        nic = world.fleet.hosts[host].domains[server].nics[0]
        await world.store.run(ports.remove, first["id"])
        assert await detach(world, server, first["id"]) == (
            "undone",
            f"port {first['id']} is no interface of this server",
        )
        gone = {"port_id": first["id"], "nic": msgspec.to_builtins(nic)}
        world.fleet.keeps_nics.add(server)
        assert (await change(world, server, DETACH, **gone))[0] == "undone"
        world.fleet.keeps_nics.clear()
        assert await change(world, server, DETACH, **gone) == ("done", "")
        assert await agree(world, server) == [second["id"]]


async def test_one_that_has_crashed_meanwhile_has_it_at_its_next_start() -> None:
    async with patient() as world:
        server = await world.boot()
        host = (await world.server(server))["host"]
        world.fleet.crash_guest(host, server)
        given = await given_port(world)
        with contextlib.suppress(Conflict):
            await attach(world, server, port_id=given["id"])
        assert world.fleet.hosts[host].domains[server].state is GuestState.SHUTOFF
        assert await world.do(server, SagaKind.HARD_REBOOT) == "done"
        assert await agree(world, server) == [given["id"]]


async def test_a_guest_that_runs_though_its_row_says_stopped_is_given_it_and_lets_go_of_it() -> None:
    """It was started by a command that was answered with a failure, or by hand."""
    async with patient() as world:
        server = await world.boot()
        assert await world.do(server, SagaKind.STOP) == "done"
        host = (await world.server(server))["host"]
        world.fleet.run(world.fleet.hosts[host], server, 128, (), ())
        given = await given_port(world)
        assert await attach(world, server, port_id=given["id"]) == ("done", "")
        assert plugged(world, server, host) == [given["id"]]
        assert await detach(world, server, given["id"]) == ("done", "")
        assert plugged(world, server, host) == []
