"""Guests that ask for what they are told of themselves, and the process of their host that serves it."""

from __future__ import annotations

import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from droveway.agents.metadata.server import MetadataServer
from droveway.domain.guest_data import GuestData, GuestFacts, GuestKey
from droveway.domain.network_plan import METADATA, HostNetworks, PlannedPort
from droveway.drivers.network.bridge import kernel, names
from lab import network
from tests.drivers import network_worlds as w

GROUP, OPEN = w.identity(1), msgspec.structs.replace(w.group(1, *w.PING), name="web")
USER_DATA = b"#!/bin/sh\n\xff"


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


def is_under_way(one: socket.socket) -> bool:
    """It has been answered neither by a connection nor by a refusal."""
    try:
        one.getpeername()
    except OSError:
        writable = select.poll()  # select() knows no descriptor above 1023
        writable.register(one, select.POLLOUT)
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and not writable.poll(0)
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
