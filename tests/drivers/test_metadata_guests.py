"""Guests ask for what they are told of themselves: real packets, real namespaces, the process that serves them, and
cloud-init's own code on the other side."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from droveway.agents.metadata import server
from droveway.agents.metadata.server import MetadataServer, NotServed
from droveway.domain.guest_data import GuestData, GuestFacts, GuestKey
from droveway.domain.network_plan import METADATA, METADATA6, AddressPair, HostNetworks, PlannedPort
from droveway.drivers.network.bridge import kernel, names
from lab import cloudinit, network
from tests.drivers import network_worlds as w

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]
GROUP, OPEN = w.identity(1), msgspec.structs.replace(w.group(1, *w.PING), name="web")
USER_DATA = b"#!/bin/sh\n\xff"
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


def of(number: int, network_number: int = 1, **given: object) -> PlannedPort:
    """A port of the guest of that number."""
    told = {"instance_id": f"vm-{number}", "data_digest": "one", **given}
    return w.port(number, network_number, (GROUP,), **told)


def told(number: int, digest: str = "one", **given: object) -> GuestData:
    facts = GuestFacts(f"vm-{number}", number, f"g{number}", f"g{number}", "p", "nova", "tiny", f"r-{number}")
    values = {"key": GuestKey("mine", "ssh", f"ssh-ed25519 AAAA{number} me"), "user_data": USER_DATA, **given}
    return GuestData(digest, msgspec.structs.replace(facts, **values))


class Place:
    """One host, its guests, and the process that serves them."""

    def __init__(self, rig: w.Rig, host: w.Host) -> None:
        self.rig, self.host = rig, host
        self.server = MetadataServer(host.directory, host.name, host.driver)
        self.guests: dict[int, w.Guest] = {}

    async def make(self, *ports: PlannedPort, revision: int = 1, **given: object) -> HostNetworks:
        numbers = sorted({int(port.network_id[:8], 16) for port in ports} | {1})
        networks = tuple(w.planned_network(one, vni=one * 100, dhcp_mac="fa:16:3e:ff:ff:01") for one in numbers)
        plan = self.rig.plan(self.host, revision, networks=networks, ports=ports, groups=(OPEN,))
        plan = msgspec.structs.replace(plan, **given)
        assert await self.host.driver.apply(plan) == ()
        return plan

    def plug(self, port: PlannedPort) -> w.Guest:
        guest = self.rig.guest(self.host, port)
        guest.plug()
        network.build(guest.name, "route add 169.254.169.254/32 via 10.0.0.2")
        return guest

    def pid(self) -> int:
        return int((self.host.directory / "metadata.pid").read_text())

    def status(self) -> dict[str, str]:
        """Of the process that serves."""
        return dict(line.split(":\t", 1) for line in Path(f"/proc/{self.pid()}/status").read_text().splitlines())

    def namespaces(self) -> set[str]:
        return kernel.namespaces((f"dwd-{names.host_tag(self.host.name)}-",))

    @contextmanager
    def host_serving(self) -> Iterator[None]:
        """As libvirtd, a broker and an API would: at every address of the host."""
        with kernel.inside(self.host.name):
            listening = [socket.create_server(("0.0.0.0", port)) for port in (22, 4222, 8774, 16509)]
        try:
            yield
        finally:
            for one in listening:
                one.close()


@asynccontextmanager
async def place(hosts: int = 1) -> AsyncIterator[tuple[Place, ...]]:
    async with w.Rig(hosts) as rig:
        made = tuple(Place(rig, host) for host in rig.hosts)
        try:
            yield made
        finally:
            for one in made:
                await one.server.end()


class Asked:
    """A connection of a guest, from within its namespace."""

    def __init__(self, guest: w.Guest, at: str = METADATA, source: str = "", wait_s: float = 5) -> None:
        family = socket.AF_INET6 if ":" in at else socket.AF_INET
        with kernel.inside(guest.name):
            self.socket = socket.socket(family, socket.SOCK_STREAM)
            self.socket.settimeout(wait_s)
            try:
                scope = (0, socket.if_nametoindex("eth0")) if ":" in at else ()
                if source:
                    self.socket.bind((source, 0, *scope))
                self.socket.connect((at, 80, *scope))
            except OSError:
                self.socket.close()
                raise

    def get(self, path: str, *headers: str) -> str:
        """The answer's status; behind it the body when that is 200."""
        with self.socket as opened, opened.makefile("rb") as answer:
            lines = [f"GET {path} HTTP/1.0", *headers, "", ""]
            opened.sendall("\r\n".join(lines).encode())
            head, _, body = answer.read().partition(b"\r\n\r\n")
        status = head.split(b" ")[1].decode()
        return f"200 {body.decode()}" if status == "200" else status


def get_refused(guest: w.Guest) -> bool:
    try:
        get(guest, "/")
    except ConnectionRefusedError:
        return True
    return False


def is_open(one: socket.socket) -> bool:
    """It was taken, and not thrown out."""
    try:
        return bool(one.getpeername()) and one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def get(guest: w.Guest, path: str, *headers: str, at: str = METADATA) -> str:
    return Asked(guest, at).get(path, *headers)


def is_silent(guest: w.Guest, at: str = METADATA, source: str = "") -> bool:
    """Not even its connection is answered."""
    try:
        Asked(guest, at, source, wait_s=0.5).socket.close()
    except TimeoutError:
        return True
    return False


def name_of(guest: w.Guest, *headers: str, at: str = METADATA) -> str:
    """Whose documents it is shown."""
    answer = get(guest, "/latest/meta-data/local-hostname", *headers, at=at)
    return answer.removeprefix("200 ")


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
        first, second, third, fourth = map(it.plug, ports)
        forged = ("X-Forwarded-For: 10.0.0.12", "X-Instance-ID: vm-12", "X-Tenant-ID: q", "Host: 10.0.0.12")
        assert name_of(first, *forged) == "g11"
        assert name_of(second, *forged) == "g211"
        assert name_of(first, at=METADATA6) == "g11" and name_of(second, at=METADATA6) == "g211"
        for guest, name in ((third, "g12"), (fourth, "g13")):
            assert name_of(guest) == name and name_of(guest, at=METADATA6) == name
            network.build(
                guest.name, "addr add 10.0.0.11/32 dev eth0", "addr add fe80::5054:ff:fe00:b/64 dev eth0 nodad"
            )
            assert is_silent(guest, source="10.0.0.11")
            assert is_silent(guest, METADATA6, "fe80::5054:ff:fe00:b")
        # A port that has gone, and one whose guest nobody knows.
        plan = await it.make(red, blue, msgspec.structs.replace(of(12), instance_id="", data_digest=""), revision=2)
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
        alive = sum(is_open(one) for one in opened)
        assert alive <= 8, alive
        for one in opened:
            one.close()
