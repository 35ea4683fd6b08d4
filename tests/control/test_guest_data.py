"""What guests are told of themselves comes to their hosts, and to no others."""

from __future__ import annotations

import asyncio
import base64

import msgspec
import pytest

from droveway.domain import guest_data as documents
from droveway.domain.guest_data import GuestFacts, GuestKey
from droveway.domain.model import SagaKind
from droveway.domain.network.quota import NO_NETWORK_LIMITS
from droveway.ports.bus import SendGuestData
from droveway.store.compute import guest_data, instances, server_attributes, server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.network import bindings, changes, networks, news, ports
from droveway.store.network.ports import NewPort
from tests.control.test_ports import networked


async def test_a_host_is_told_what_its_guests_are_told_and_of_no_others() -> None:
    def told(host: str) -> dict[str, GuestFacts]:
        return {one: guest.facts for one, guest in world.network_agents[host]._guests.items()}

    async with networked() as world:
        nic = NicRequest(network_id=world.network_id, tag="front")
        key = GuestKey("k", "ssh", "ssh-ed25519 AAAA")
        one = await world.boot(nic, on="h1", user_data=base64.b64encode(b"#!/bin/sh").decode(), key=key)
        two = await world.boot(nic, on="h2")
        without = await world.boot(on="h1")
        assert told("h1").keys() == {one} and told("h2").keys() == {two}
        assert (told("h1")[one].user_data, told("h1")[one].key) == (b"#!/bin/sh", key)
        for asked in ([one, two, without, "nobody"], [two], []):  # a host is told of its own, whatever it asks for
            of_host = await world.store.read(guest_data.data_at, "h1", asked)
            assert [guest.facts.instance_id for guest in of_host] == [one] * (one in asked)
        await world.store.run(server_ports.move, one, "h1", "h2")  # it is about to leave: both may know
        for host in ("h1", "h2"):
            (guest,) = await world.store.read(guest_data.data_at, host, [one])
            assert guest.facts.instance_id == one
        await world.store.run(server_ports.stayed, one, "h1")
        # What it is told of and what its plan says make the very documents of its config drive.
        plan, guests = world.places["h1"].plan, world.network_agents["h1"]._guests
        whole = await world.store.read(lambda tx: guest_data.facts(tx, instances.get(tx, one)))
        assert documents.documents(documents.at_host(guests, plan)[one]) == documents.documents(whole)
        # A stranger's port that only says that the server is its device is told nothing of it.
        stranger = await world.store.run(
            lambda tx: ports.create(
                tx,
                networks.row_of(tx, world.network_id),
                NewPort("q", device_id=one, device_owner="compute:nova"),
                NO_NETWORK_LIMITS,
            )["id"]
        )
        await world.store.run(bindings.bind, stranger, "h1")
        (port,) = await world.ports_of(one)
        await world.until_planned("h1", port["id"], stranger)
        planned = world.planned("h1")
        assert planned[port["id"]].data_digest and not planned[stranger].data_digest
        assert planned[stranger].hostname == planned[port["id"]].hostname == "g"
        await world.store.run(ports.remove, stranger)
        assert await world.do(one, SagaKind.LIVE_MIGRATION) == "done"
        await world.until_planned("h1")
        assert told("h1") == {} and told("h2").keys() == {one, two}
        assert await world.do(one, SagaKind.DELETE) == "done"
        (port,) = await world.ports_of(two)
        await world.until_planned("h2", port["id"])
        assert told("h2").keys() == {two}


async def test_a_new_name_is_told_and_costs_no_look_at_everything() -> None:
    async with networked() as world:
        server = await world.boot(NicRequest(network_id=world.network_id), on="h1")
        last = await world.store.read(changes.last)
        await world.store.run(lambda tx: server_attributes.change(tx, server, name="renamed", hostname="renamed"))
        found = await world.store.read(news.look, last, 100)
        (port,) = await world.ports_of(server)
        assert found is not None and not found.is_whole and found.ports.keys() == {port["id"]}
        guests = world.network_agents["h1"]._guests
        async with asyncio.timeout(10):
            while guests[server].facts.name != "renamed":
                await asyncio.sleep(0.02)


async def test_what_a_guest_has_set_is_stored_once_and_told_back() -> None:
    async with networked() as world:
        nic = NicRequest(network_id=world.network_id)
        one, two = await world.boot(nic, on="h1"), await world.boot(nic, on="h2")
        agent = world.network_agents["h1"]
        says = {one: "c2VjcmV0", two: "it is not on this host", "nobody": "x"}

        def said(**passwords: str) -> None:
            agent._passwords = passwords
            world.on_notice(agent._reports.full())

        async def stored(instance_id: str) -> str | None:
            row = await world.store.read(instances.get, instance_id)
            return row["guest_password"]

        async def until_told(password: str) -> None:
            async with asyncio.timeout(10):
                while agent._guests[one].facts.password != password:
                    await asyncio.sleep(0.02)

        said(**says)
        await until_told("c2VjcmV0")
        assert documents.served(agent._guests[one].facts)["openstack/latest/password"] == b"c2VjcmV0"
        assert (await stored(one), await stored(two)) == ("c2VjcmV0", None)
        said(**{one: "a second one"})
        await world.store.run(lambda tx: server_attributes.change(tx, one, name="renamed"))
        async with asyncio.timeout(10):
            while agent._guests[one].facts.name != "renamed":
                await asyncio.sleep(0.02)
        assert await stored(one) == "c2VjcmV0"
        said()
        await world.store.run(lambda tx: server_attributes.change(tx, one, guest_password=None))
        await until_told("")
        assert "c2VjcmV0" not in repr(agent._reports.full()) + repr(agent._guests[one])


async def test_what_one_message_tells_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with networked() as world:
        nic = NicRequest(network_id=world.network_id)
        data = base64.b64encode(b"x" * 45_000).decode()
        servers = [await world.boot(nic, on="h1", user_data=data) for _ in range(3)]
        monkeypatch.setattr(guest_data, "SENT_AT_ONCE_BYTES", 100_000)
        told = await world.store.read(guest_data.data_at, "h1", servers)
        assert [guest.facts.instance_id for guest in told] == sorted(servers)[:2]
        monkeypatch.setattr(guest_data, "SENT_AT_ONCE_BYTES", 1)
        assert len(await world.store.read(guest_data.data_at, "h1", servers)) == 1
        assert len(msgspec.json.encode(SendGuestData(told))) < 4 * 100_000 / 2
