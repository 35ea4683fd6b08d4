"""Guests ask for what they are told of themselves: real packets, real namespaces, the process that serves them, and
cloud-init's own code on the other side."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import time

import msgspec
import pytest

from droveway.agents.metadata import server
from droveway.agents.metadata.server import MetadataServer, NotServed
from droveway.domain.network_plan import METADATA, METADATA6, AddressPair
from droveway.drivers.network.bridge import kernel
from lab import cloudinit, network
from tests.drivers import network_worlds as w
from tests.drivers.metadata_worlds import (
    USER_DATA,
    get,
    get_refused,
    is_open,
    is_silent,
    is_under_way,
    name_of,
    of,
    place,
    told,
)

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]
# Every port of ours that a host may have, and some that others have.
SCAN = f"""
import socket, time
tried = []
for at in ({METADATA!r}, {METADATA6!r}):
    for port in (22, 53, 67, 80, 111, 443, 4222, 4789, 5000, 5672, 8774, 9696, 16509, 16514, 49152):
        made = socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET)
        made.setblocking(False)
        made.connect_ex((at, port, 0, socket.if_nametoindex("eth0")) if ":" in at else (at, port))
        tried.append((f"{{at}}:{{port}}", made))
time.sleep(1)
for name, made in tried:
    try:
        made.getpeername()
        print(name)
    except OSError:
        pass
"""


async def test_cloud_init_reads_what_its_guest_is_told() -> None:
    async with place() as (it,):
        port = of(11)
        plan = await it.make(port)
        await it.server.bring(plan, {"vm-11": told(11)})
        guest = it.plug(port)
        found = cloudinit.read(f"http://{METADATA}", {port.mac: "eth0"}, guest.name)
        assert (found["metadata"]["uuid"], found["metadata"]["hostname"]) == ("vm-11", "g11")
        assert found["metadata"]["public_keys"] == {"mine": "ssh-ed25519 AAAA11 me"} and found["version"] == 2
        assert base64.b64decode(found["userdata"]) == USER_DATA
        assert found["network_config"]["config"][0]["mac_address"] == port.mac
        assert (found["vendordata"], found["vendordata2"]) == ({}, {})
        ec2 = found["ec2"]
        assert base64.b64decode(ec2["user-data"]) == USER_DATA
        meta = ec2["meta-data"]
        assert meta["public-keys"] == {"mine": "ssh-ed25519 AAAA11 me"}
        assert (meta["instance-id"], meta["local-ipv4"]) == ("i-0000000b", "10.0.0.11")
        assert meta["placement"] == {"availability-zone": "nova"} and meta["security-groups"] == "web"
        assert meta["block-device-mapping"] == {"ami": "vda", "root": "/dev/vda"}


async def test_who_asks_is_known_by_network_and_address_and_by_no_word() -> None:
    async with place() as (it,):
        red, blue = of(11), of(211, 2)  # two tenants with one CIDR, and one address
        other = of(12, pairs=(AddressPair("10.0.0.0/24"),))  # it may send from any, and is still itself
        loose = msgspec.structs.replace(of(13), has_security=False, groups=())
        ports = (red, blue, other, loose)
        plan = await it.make(*ports)
        await it.server.bring(plan, {f"vm-{number}": told(number) for number in (11, 211, 12, 13)})
        third, fourth = it.plug(other), it.plug(loose)
        for guest, name in ((third, "g12"), (fourth, "g13")):
            assert name_of(guest) == name and name_of(guest, at=METADATA6) == name
            for address in ("10.0.0.11", "fe80::5054:ff:fe00:b"):  # of one that is not there: it has the answers
                network.build(guest.name, f"addr add {address}/32 dev eth0{' nodad' if ':' in address else ''}")
            assert is_silent(guest, source="10.0.0.11")
            assert is_silent(guest, METADATA6, "fe80::5054:ff:fe00:b")
            for address in ("10.0.0.11", "fe80::5054:ff:fe00:b"):
                network.build(guest.name, f"addr del {address}/32 dev eth0")
        first, second = it.plug(red), it.plug(blue)
        forged = ("X-Forwarded-For: 10.0.0.12", "X-Instance-ID: vm-12", "X-Tenant-ID: q", "Host: 10.0.0.12")
        assert name_of(first, *forged) == "g11"
        assert name_of(second, *forged) == "g211"
        assert name_of(first, at=METADATA6) == "g11" and name_of(second, at=METADATA6) == "g211"
        # A port that has gone, and one whose guest nobody knows.
        plan = await it.make(red, blue, msgspec.structs.replace(of(12), data_digest=""), revision=2)
        await it.server.bring(plan, {f"vm-{number}": told(number) for number in (11, 211)})
        assert get(third, "/latest/meta-data/") == "404"
        assert is_silent(fourth)
        assert name_of(first) == "g11"


async def test_nothing_else_of_the_host_answers_there() -> None:
    async with place() as (it,):
        port = of(11)
        plan = await it.make(port)
        await it.server.bring(plan, {"vm-11": told(11)})
        guest = it.plug(port)
        with it.host_serving():
            scan = guest.run("python3", "-IS", "-c", SCAN, timeout_s=60)
        assert scan.stdout.split() == [f"{METADATA}:80", f"{METADATA6}:80"], scan.stderr


async def test_what_changes_is_served_and_what_has_gone_is_not() -> None:
    async with place(2) as (source, destination):
        port = of(11)
        plans = [await one.make(port) for one in (source, destination)]  # a guest that moves is bound to both
        assert get_refused(source.plug(port))
        await source.server.bring(plans[0], {})
        guest = source.rig.guests[-1]
        assert get(guest, "/latest/meta-data/local-hostname") == "503"  # its data has not come yet
        for one, plan in zip((source, destination), plans, strict=True):
            await one.server.bring(plan, {"vm-11": told(11)})
        assert name_of(guest) == "g11"
        await source.server.bring(plans[0], {"vm-11": told(11, hostname="renamed")})
        assert name_of(guest) == "renamed"
        # It arrives: the source has it no more, and serves nobody.
        network.build(guest.name, "link del eth0")
        plan = await source.make(revision=2, networks=(), groups=())
        await source.server.bring(plan, {})
        assert not (source.host.directory / "metadata.pid").exists()  # its process has ended
        assert not source.namespaces()
        assert name_of(destination.plug(port)) == "g11"


async def test_an_address_that_changes_hands_is_nobody_s_until_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """While rules are made, its old owner has it still, and the documents of the new one are there."""
    monkeypatch.setattr(server, "WITHDRAW_S", 0.5)
    async with place() as (it,):
        old, new = of(11), of(12)
        plan, data = await it.make(old, new), {"vm-11": told(11), "vm-12": told(12)}
        await it.server.bring(plan, data)
        first, second = it.plug(old), it.plug(new)
        next_plan = msgspec.structs.replace(plan, ports=(msgspec.structs.replace(new, fixed_ips=old.fixed_ips),))
        for is_adopted in (False, True):
            if is_adopted:  # another agent, whose first act this is
                it.server.close()
                it.server = MetadataServer(it.host.directory, it.host.name, it.host.driver)
            pid = it.pid()
            await it.server.withdraw(next_plan)
            await it.server.bring(next_plan, data)
            assert get(first, "/latest/meta-data/") == get(second, "/latest/meta-data/") == "404"
            assert name_of(second, at=METADATA6) == "g12" and it.pid() == pid
            it.server.settle()
            await it.server.bring(plan, data)
            assert (name_of(first), name_of(second)) == ("g11", "g12")
        os.kill(pid, signal.SIGSTOP)
        await it.server.withdraw(next_plan)
        assert not w.is_running(pid)  # it told on what it could not be told to keep
        it.server.settle()
        await it.server.bring(plan, data)
        assert name_of(first) == "g11"


@pytest.mark.alone
async def test_agent_and_process_end_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with place() as (it,):
        port = of(11)
        plan = await it.make(port)
        data = {"vm-11": told(11)}
        await it.server.bring(plan, data)
        guest, first = it.plug(port), it.pid()
        it.server.close()  # the agent has ended
        assert name_of(guest) == "g11"
        it.server = MetadataServer(it.host.directory, it.host.name, it.host.driver)
        await it.server.bring(plan, data)
        assert it.pid() == first and name_of(guest) == "g11"  # adopted
        lost = asyncio.Event()
        it.server.lost = lost.set
        os.kill(first, signal.SIGKILL)
        began = time.monotonic()
        async with asyncio.timeout(5):
            await lost.wait()
        await it.server.bring(plan, data)
        assert name_of(guest) == "g11" and it.pid() != first
        assert time.monotonic() - began < 1.0
        monkeypatch.setattr(server, "ANSWER_S", 0.5)
        it.server.close()
        os.kill(it.pid(), signal.SIGSTOP)  # one that hangs is replaced
        with pytest.raises(NotServed, match="does not answer"):
            await it.server.bring(plan, {"vm-11": told(11, hostname="renamed")})
        await it.server.bring(plan, data)
        assert name_of(guest) == "g11"
        # One of another release is replaced by this one's.
        it.server.close()
        with monkeypatch.context() as older:
            older.setattr(server, "_version", lambda: "older")
            await it.server.bring(plan, data)
        older_pid = it.pid()
        it.server.close()
        await it.server.bring(plan, data)
        assert name_of(guest) == "g11" and it.pid() != older_pid
        w.wait_until(lambda: not w.is_running(older_pid))
        # A network that is made anew by somebody's hand is listened in again.
        (name,) = it.namespaces()
        kernel.delete_namespace(name)
        await it.make(port, revision=1)
        await it.server.bring(plan, data)
        assert name_of(guest) == "g11"


async def test_the_process_can_do_nothing_but_serve() -> None:
    async with place() as (it,):
        port = of(11)
        await it.server.bring(await it.make(port), {"vm-11": told(11)})
        status = it.status()
        assert status["Uid"].split() == ["65534"] * 4 and status["Groups"].strip() == ""
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"
        assert os.listdir(f"/proc/{it.pid()}/root") == []
        assert os.stat(f"/proc/{it.pid()}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino


@pytest.mark.alone
async def test_a_guest_that_wants_all_of_it_keeps_no_other_waiting() -> None:
    async with place() as (it,):
        greedy, modest = of(11), of(12)
        plan = await it.make(greedy, modest)
        await it.server.bring(plan, {"vm-11": told(11), "vm-12": told(12)})
        first, second = it.plug(greedy), it.plug(modest)
        opened = []
        with kernel.inside(first.name):
            for _ in range(1000):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex((METADATA, 80))
                opened.append(one)
        began = time.monotonic()
        assert name_of(second) == "g12"
        assert time.monotonic() - began < 1.0
        assert sum(is_under_way(one) for one in opened) > 500  # of these the kernel takes so many a second
        w.wait_until(
            lambda: sum(is_open(one) for one in opened) <= 8
        )  # one that has just come is thrown out in a moment
        for one in opened:
            one.close()
