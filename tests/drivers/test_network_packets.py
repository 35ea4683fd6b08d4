"""Real packets of guests on bridges: what a host lets through, cuts, mends and hides."""

from __future__ import annotations

import ipaddress
import os
import re
import select
import subprocess
import time
from functools import partial

import msgspec
import pytest

from droveway.domain.network_plan import AddressPair, GroupRule, RuleDirection, link_local
from droveway.drivers.network.bridge import kernel, names
from lab import network
from lab.processes import wait_for
from tests.drivers import network_worlds as w

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]
SOON_S = 30.0

GROUP = w.identity(1)
ONE, TWO, THREE = (w.port(number, groups=(GROUP,)) for number in (11, 12, 13))
OPEN = w.group(1, w.tcp(80), w.tcp(80, 6), *w.PING)
SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for frame in sys.argv[1:]: s.send(bytes.fromhex(frame))
"""


def frame(to: str, source: str, kind: int, payload: bytes) -> str:
    ends = bytes.fromhex(to.replace(":", "")) + bytes.fromhex(source.replace(":", ""))
    return (ends + kind.to_bytes(2) + payload.ljust(46, b"\0")).hex()


def arp(sender_mac: str, sender: str, target: str) -> bytes:
    ends = bytes.fromhex(sender_mac.replace(":", "")) + ipaddress.ip_address(sender).packed
    return bytes.fromhex("0001080006040001") + ends + bytes(6) + ipaddress.ip_address(target).packed


def udp(source: str, to: str, source_port: int, port: int) -> bytes:
    body = source_port.to_bytes(2) + port.to_bytes(2) + (12).to_bytes(2) + bytes(2) + b"spoof"[:4]
    front = b"\x45\0" + (20 + len(body)).to_bytes(2) + bytes(4) + b"\x40\x11"
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(to).packed
    words = front + bytes(2) + ends
    total = sum(int.from_bytes(words[i : i + 2]) for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return front + (total ^ 0xFFFF).to_bytes(2) + ends + body


def ip6(source: str, to: str, header: int, body: bytes, hops: int = 255) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(to).packed
    return b"\x60\0\0\0" + len(body).to_bytes(2) + bytes([header, hops]) + ends + body


OWN, EVERYBODY, OTHER_MAC = w.mac(11), "ff:ff:ff:ff:ff:ff", w.mac(99)
OWN6 = link_local(OWN)
RA = b"\x86\0\0\0\x40\0\x07\x08" + bytes(8)
NA = b"\x88\0\0\0\xa0\0\0\0" + ipaddress.ip_address("fd00::12").packed
FORGED = {
    "another MAC": (frame(w.mac(12), OTHER_MAC, 0x0800, udp("10.0.0.11", "10.0.0.12", 5, 80)), "sent"),
    "another address": (frame(w.mac(12), OWN, 0x0800, udp("10.0.0.77", "10.0.0.12", 5, 80)), "sent_ip4"),
    "ARP for another address": (frame(EVERYBODY, OWN, 0x0806, arp(OWN, "10.0.0.12", "10.0.0.2")), "sent_arp"),
    "ARP with another MAC": (frame(EVERYBODY, OWN, 0x0806, arp(OTHER_MAC, "10.0.0.11", "10.0.0.2")), "sent_arp"),
    "a DHCP offer": (frame(w.mac(12), OWN, 0x0800, udp("10.0.0.11", "10.0.0.12", 67, 68)), "sent_ip4"),
    "a router advertisement": (frame("33:33:00:00:00:01", OWN, 0x86DD, ip6(OWN6, "ff02::1", 58, RA)), "sent_ip6"),
    "a neighbour advertisement": (frame("33:33:00:00:00:01", OWN, 0x86DD, ip6(OWN6, "ff02::1", 58, NA)), "sent_ip6"),
    "another IPv6 address": (frame(w.mac(12), OWN, 0x86DD, ip6("fd00::77", "fd00::12", 17, bytes(8))), "sent_ip6"),
    "a DHCPv6 answer": (
        frame(w.mac(12), OWN, 0x86DD, ip6(OWN6, "fd00::12", 17, b"\x02\x23\x02\x22\0\x08\0\0")),
        "sent_ip6",
    ),
    "LLDP": (frame(EVERYBODY, OWN, 0x88CC, bytes(46)), "sent"),
}


async def test_what_a_guest_forges_is_dropped_and_counted() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        await host.driver.apply(rig.plan(host, networks=(w.planned_network(),), ports=(ONE, TWO), groups=(OPEN,)))
        one, two = rig.guest(host, ONE), rig.guest(host, TWO)
        one.plug()
        two.plug()
        assert one.pings("10.0.0.12") and one.pings("fd00::12")  # who sends what is its own is heard
        for what, (forged, chain) in FORGED.items():
            before = host.dropped(chain)
            one.run("python3", "-IS", "-c", SEND, forged)
            assert host.dropped(chain) == before + 1, what
        rarp = frame(EVERYBODY, OWN, 0x8035, bytes(28))  # by which QEMU says where a guest has arrived
        before = host.dropped("sent")
        one.run("python3", "-IS", "-c", SEND, rarp)
        assert host.dropped("sent") == before


async def test_a_port_may_have_further_addresses() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        pairs = (AddressPair("10.0.0.64/26"), AddressPair("10.0.0.70"), AddressPair("fd00::4:0/112"))
        own = msgspec.structs.replace(ONE, pairs=pairs)
        assert (
            await host.driver.apply(rig.plan(host, networks=(w.planned_network(),), ports=(own, TWO), groups=(OPEN,)))
            == ()
        )
        one, two = rig.guest(host, own), rig.guest(host, TWO)
        one.plug()
        two.plug()
        network.build(one.name, "addr add 10.0.0.65/24 dev eth0", "addr add fd00::4:1/64 dev eth0")
        network.build(one.name, "addr add 10.0.0.130/24 dev eth0")
        for address in ("10.0.0.65", "fd00::4:1"):  # one for IPv6 is asked about first, whether somebody has it
            assert wait_for(partial(two.pings, address), SOON_S), address
        assert not two.pings("10.0.0.130", wait_s=0.4)


async def test_a_closed_rule_cuts_its_connections_and_an_opened_one_lets_them_go_on() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        networks, ports = (w.planned_network(),), (ONE, TWO)
        plan = rig.plan(host, networks=networks, ports=ports, groups=(OPEN,))
        closed = rig.plan(host, 2, networks=networks, ports=ports, groups=(w.group(1, w.tcp(81), *w.PING),))
        await host.driver.apply(plan)
        client, server = rig.guest(host, ONE), rig.guest(host, TWO)
        client.plug()
        server.plug()
        pushes = "[(c.sendall(b'.'), time.sleep(0.01)) for _ in iter(int, 1)]"
        counts = (
            "import socket\ns = socket.create_connection(('10.0.0.12', {}))\n"
            "for _ in iter(int, 1): print(len(s.recv(4096)), flush=True)"
        )
        with (
            server.serving(80, pushes),
            server.serving(81, pushes),
            client.started("python3", "-IS", "-c", counts.format(80)) as cut,
        ):
            assert _bytes_within(cut, 9.0) > 10
            await host.driver.apply(closed)
            _bytes_within(cut, 0.1)  # what was on its way
            assert _bytes_within(cut, 0.6) == 0
            with client.started("python3", "-IS", "-c", counts.format(81)) as kept:
                assert _bytes_within(kept, 9.0) > 10
                await host.driver.apply(msgspec.structs.replace(closed, revision=3, ports=(ONE, TWO, THREE)))
                assert _bytes_within(kept, 0.5) > 10
                assert _bytes_within(cut, 0.1) == 0
            await host.driver.apply(msgspec.structs.replace(plan, revision=4))
            assert _bytes_within(cut, 60.0) > 10  # TCP sends again, the later the longer it was cut


def _bytes_within(process: subprocess.Popen[str], seconds: float) -> int:
    """That it has received, as it prints them."""
    assert process.stdout is not None
    end, text = time.monotonic() + seconds, b""
    while (left := end - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], left)[0]:
            text += os.read(process.stdout.fileno(), 65_536)
            if sum(map(int, text.split()[:-1])) > 10:
                break
    return sum(map(int, text.split()))


async def test_two_tenants_with_the_same_addresses_on_two_hosts_are_apart() -> None:
    """Both have a guest 10.0.0.11 on the first host and a 10.0.0.12 on the second, with the same MACs."""
    async with w.Rig(2) as rig:
        first, second = rig.hosts
        guests: dict[tuple[int, int], w.Guest] = {}
        for host, other, number in ((first, second, 11), (second, first, 12)):
            networks, ports = [], []
            for tenant in (1, 2):
                peer = w.port(tenant * 100 + 23 - number, tenant, (GROUP,))
                networks.append(
                    w.planned_network(
                        tenant,
                        vni=tenant + 100,
                        tunnel_addresses=(other.address,),
                        remote_ports=(w.remote(peer, other.address),),
                    )
                )
                ports.append(w.port(tenant * 100 + number, tenant, (GROUP,)))
            plan = rig.plan(host, networks=tuple(networks), ports=tuple(ports), groups=(OPEN,))
            assert await host.driver.apply(plan) == ()
            for tenant, port in zip((1, 2), ports, strict=True):
                guests[tenant, number] = rig.guest(host, port)
                guests[tenant, number].plug()
        one, other = guests[1, 11], guests[2, 11]
        assert one.pings("10.0.0.12") and one.pings("fd00::12") and other.pings("10.0.0.12")
        code = (
            "import socket; s = socket.socket(); s.bind(('10.0.0.11', 40000)); s.settimeout(2)\n"
            "s.connect(('10.0.0.12', 80))\nwhile True: input(); s.sendall(b'.'); print(s.recv(1), flush=True)"
        )
        answers = "[c.sendall(b'{}'[: len(c.recv(1))]) for _ in iter(int, 1)]"
        with (  # the same ports at both ends, at the same time
            guests[1, 12].serving(80, answers.format(1)),
            guests[2, 12].serving(80, answers.format(2)),
            w.talking(one, code) as mine,
            w.talking(other, code) as theirs,
        ):
            assert [mine(), theirs(), mine(), theirs(), mine()] == ["b'1'", "b'2'", "b'1'", "b'2'", "b'1'"]
            tracked = kernel.run("conntrack", "-L", "-p", "tcp", "--dport", "80", namespace=first.name)
            assert len(set(re.findall(r"zone=\d+", tracked))) == 2, tracked
        assert one.run("ping", "-n", "-c", "1", "-M", "do", "-s", "1422", "10.0.0.12").returncode == 0  # 1450 bytes
        assert one.run("ping", "-n", "-c", "1", "-s", "4000", "10.0.0.12").returncode == 0
        served = one.run("ping", "-n", "-c", "3", "-i", "0.1", "10.0.0.2")  # both hosts have that server, by one MAC
        assert served.returncode == 0 and "DUP!" not in served.stdout
        guests[1, 12].run("ip", "link", "set", "eth0", "down")
        assert not one.pings("10.0.0.12", wait_s=0.4) and other.pings("10.0.0.12")


async def test_what_one_tenant_may_not_cuts_no_connection_of_another() -> None:
    """The same addresses and ports on one host, where one has no rule for them."""
    async with w.Rig() as rig:
        host, closed = rig.hosts[0], w.identity(2)
        networks = (w.planned_network(1, vni=1), w.planned_network(2, vni=2, dhcp_mac="fa:16:3e:ff:ff:02"))
        ports = (ONE, TWO, w.port(211, 2, (closed,)), w.port(212, 2, (closed,)))
        groups = (w.group(1, GroupRule(RuleDirection.INGRESS, 4, 17, 53, 53)), w.group(2, *w.PING))
        assert await host.driver.apply(rig.plan(host, networks=networks, ports=ports, groups=groups)) == ()
        one, two, other, _ = guests = [rig.guest(host, port) for port in ports]
        for guest in guests:
            guest.plug()
        open_ = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(2); s.bind(('10.0.0.{}', {}));"
        ask_ = "s.sendto(b'.', ('10.0.0.12', 53)); print(s.recv(1), flush=True)"
        serve = f"{open_.format(12, 53)} print(flush=True); s.settimeout(60)\nwhile True: s.sendto(*s.recvfrom(9))"
        with two.started("python3", "-IS", "-c", serve) as server:
            assert server.stdout is not None
            server.stdout.readline()
            with w.talking(one, f"{open_.format(11, 40000)}\nwhile True: input(); {ask_}") as ask:
                assert ask() == ask() == "b'.'"
                assert other.pings("10.0.0.12")
                refused = other.run("python3", "-IS", "-c", f"{open_.format(11, 40000)} {ask_}")
                assert "TimeoutError" in refused.stderr
                assert ask() == "b'.'"


async def test_a_frame_for_a_guest_that_is_not_known_reaches_no_other() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        free = msgspec.structs.replace(THREE, has_security=False)
        ports = (ONE, TWO, free)
        every = w.group(1, GroupRule(RuleDirection.INGRESS, 4), *w.PING)
        await host.driver.apply(rig.plan(host, networks=(w.planned_network(),), ports=ports, groups=(every,)))
        one, two, three = (rig.guest(host, port) for port in ports)
        for guest in (one, two, three):
            guest.plug()
        assert one.pings("10.0.0.12")
        lost = frame(OTHER_MAC, OWN, 0x0800, udp("10.0.0.11", "10.0.0.99", 5, 80))

        def received(guest: w.Guest) -> int:
            return int(guest.run("cat", "/proc/self/net/dev").stdout.partition("eth0:")[2].split()[1])

        before = received(two), received(three)
        one.run("python3", "-IS", "-c", SEND, *[lost] * 50)
        assert received(two) - before[0] < 20 and received(three) - before[1] >= 50


async def test_tunnels_are_those_of_known_hosts() -> None:
    async with w.Rig(2) as rig:
        first, second = rig.hosts
        for host, other, port in ((first, second, ONE), (second, first, TWO)):
            networks = (w.planned_network(tunnel_addresses=(other.address,)),)
            await host.driver.apply(rig.plan(host, networks=networks, ports=(port,), groups=(OPEN,)))
        one, two = rig.guest(first, ONE), rig.guest(second, TWO)
        one.plug()
        two.plug()
        assert one.pings("10.0.0.12")
        networks = (w.planned_network(tunnel_addresses=(first.address,)),)
        forgetful = msgspec.structs.replace(
            rig.plan(second, 2, networks=networks, ports=(TWO,), groups=(OPEN,)), known_hosts=("192.0.2.77",)
        )
        await second.driver.apply(forgetful)
        assert not one.pings("10.0.0.12", wait_s=0.4)


async def test_a_guest_reaches_nothing_of_its_host() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        await host.driver.apply(rig.plan(host, networks=(w.planned_network(),), ports=(ONE,), groups=(OPEN,)))
        guest = rig.guest(host, ONE)
        guest.plug()
        bridge = next(iter(kernel.links(host.name)[name] for name in host.links() if name.startswith("dwb")))
        host.sh("ip addr add 10.0.0.200/24 dev eth0")  # even one that reads like an address of the network
        listens = (
            "nsenter",
            f"--net={network.path(host.name)}",
            *("--", "python3", "-IS", "-c"),
            "import socket, time; s = socket.create_server(('', 16514)); print(flush=True); time.sleep(60)",
        )
        with subprocess.Popen(listens, stdout=subprocess.PIPE, cwd="/") as server:
            assert server.stdout is not None
            server.stdout.readline()
            for address in (host.address, "10.0.0.200"):
                assert not guest.pings(address, wait_s=0.3)  # nobody answers who has it
                guest.run("ip", "route", "replace", address, "dev", "eth0")
                guest.run("ip", "neigh", "replace", address, "lladdr", bridge["address"], "dev", "eth0")
                assert not guest.pings(address, wait_s=0.3)
                assert not guest.connects(address, 16514, wait_s=0.3)
            server.kill()
        assert not guest.connects("10.0.0.2", 22, wait_s=0.3)  # and of the DHCP server's namespace


# -- idempotence, mending and rebuilding ------------------------------------------------------------------------------
async def test_what_is_right_is_not_touched() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        plan = rig.plan(host, networks=(w.planned_network(),), ports=(ONE, TWO), groups=(OPEN,))
        await host.driver.apply(plan)
        one, two = rig.guest(host, ONE), rig.guest(host, TWO)
        one.plug()
        two.plug()
        await host.driver.apply(plan)
        rules, links = host.rules(), kernel.links(host.name)
        tables = kernel.run("nft", "-a", "list", "tables", namespace=host.name)
        assert one.pings("10.0.0.12")
        with one.pinging("10.0.0.12") as counted:
            for _ in range(3):
                assert await host.driver.apply(plan) == ()
            other = (w.planned_network(), w.planned_network(2, vni=200))
            more = msgspec.structs.replace(plan, revision=2, networks=other, ports=(*plan.ports, THREE, w.port(211, 2)))
            assert await host.driver.apply(more) == ()
            assert kernel.run("nft", "-a", "list", "tables", namespace=host.name) == tables  # no rule was loaded anew
            await host.begin_anew()  # and a new process, which knows nothing, loads them all
            assert await host.driver.apply(more) == ()
            assert await host.driver.apply(msgspec.structs.replace(plan, revision=3)) == ()
        assert counted["sent"] > 50 and counted["lost"] == 0
        assert host.rules() == rules
        assert {name: one["ifindex"] for name, one in kernel.links(host.name).items()} == {
            name: one["ifindex"] for name, one in links.items()
        }


BY_HAND = {
    "the bridge": "ip link del dwb00000001000",
    "the tunnel": "ip link del dwv00000001000",
    "the server's cable": "ip link del dwd00000001000",
    "the rules": "nft flush ruleset",
    "one rule": "nft flush chain inet droveway end_in",
    "a port's mark": "nft flush map bridge droveway ports",
    "the MTU": "ip link set dwb00000001000 mtu 900",
    "all at once": "nft flush ruleset; ip link del dwv00000001000; ip link del dwb00000001000",
}


@pytest.mark.parametrize("what", BY_HAND)
async def test_what_is_removed_by_hand_is_mended(what: str) -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        plan = rig.plan(host, networks=(w.planned_network(),), ports=(ONE, TWO), groups=(OPEN,))
        await host.driver.apply(plan)
        one, two = rig.guest(host, ONE), rig.guest(host, TWO)
        one.plug()
        two.plug()
        rules, links = host.rules(), host.links()
        host.sh(BY_HAND[what])
        assert host.rules() != rules or host.links() != links or what == "the MTU"
        assert await host.driver.apply(msgspec.structs.replace(plan, revision=2)) == ()
        assert (host.rules(), host.links()) == (rules, links)
        assert kernel.links(host.name)["dwb00000001000"]["mtu"] == 1450
        assert one.pings("10.0.0.12") and one.pings("10.0.0.2") and not one.connects("10.0.0.12", 81, wait_s=0.3)


async def test_a_host_without_a_part_of_the_network_loses_it_whole() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        before = host.links()
        plan = rig.plan(host, networks=(w.planned_network(),), ports=(ONE,), groups=(OPEN,))
        await host.driver.apply(plan)
        directory = next(host.directory.iterdir())
        pid = int((directory / "pid").read_text())
        assert w.is_running(pid)
        assert await host.driver.apply(rig.plan(host, 2)) == ()
        assert host.links() == before
        assert not directory.exists() and not w.is_running(pid)
        assert not kernel.is_namespace(names.dhcp_namespace_of(host.name, w.identity(1)))


async def test_connections_travel_with_a_guest() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        plan = rig.plan(host, networks=(w.planned_network(),), ports=(ONE, TWO), groups=(OPEN,))
        await host.driver.apply(plan)
        one, two = rig.guest(host, ONE), rig.guest(host, TWO)
        one.plug()
        two.plug()
        wait = "time.sleep(60)"
        code = "import socket; s = socket.create_connection(('10.0.0.12', 80)); print(flush=True); s.recv(1)"
        with two.serving(80, wait), one.started("python3", "-IS", "-c", code) as client:
            assert client.stdout is not None
            client.stdout.readline()
            saved = await host.driver.connections(TWO.id)
        (line,) = [line for line in saved.splitlines() if "--dport 80 " in line]
        assert "-s 10.0.0.11 -d 10.0.0.12" in line and " -w " not in line
        host.sh("conntrack -F")
        forged = line.replace("10.0.0.1", "10.9.9.9") + "\n-A -t 5 -p tcp; touch /tmp/x\n"
        await host.driver.restore_connections(TWO.id, saved + forged)
        assert await host.driver.connections(TWO.id) != ""
        text = kernel.run("conntrack", "-L", namespace=host.name)
        assert "10.9.9.9" not in text and "dport=80" in text and "zone=" in text
