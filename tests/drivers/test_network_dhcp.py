"""Addresses by DHCP and router advertisement, and where metadata is listened for, with a real client."""

from __future__ import annotations

import json
import os
import signal

import msgspec
import pytest

from droveway.domain.network_plan import FixedIp
from droveway.drivers.network.bridge import leases
from lab import network
from tests.drivers import network_worlds as w

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]

GROUP = w.identity(1)
ONE, TWO = (w.port(number, groups=(GROUP,)) for number in (11, 12))
OPEN = w.group(1, w.tcp(80), *w.PING)
UDHCPC = (
    'echo "$1 $ip $mask $router $dns $mtu $staticroutes $hostname"; [ -z "$ip" ] || ip addr replace "$ip/24" dev eth0'
)


async def test_a_guest_gets_its_address_and_renews_it() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        routes = (("10.7.0.0/16", "10.0.0.9"),)
        net = w.planned_network(1, w.subnet(1, dns=("10.0.0.53", "9.9.9.9"), routes=routes))
        own = msgspec.structs.replace(ONE, hostname="web-1")
        plan = rig.plan(host, networks=(net,), ports=(own,), groups=(OPEN,))
        await host.driver.apply(plan)
        guest = rig.guest(host, own, is_configured=False)
        guest.plug()
        script = rig.directory / "script"
        script.write_text(f"#!/bin/sh\n{UDHCPC}\n")
        script.chmod(0o755)
        command = ("busybox", "udhcpc", "-i", "eth0", "-s", str(script), "-f", "-O", "mtu", "-O", "staticroutes")
        with guest.started(*command, "-t", "5", "-T", "1") as client:
            assert client.stdout is not None
            lines = iter(client.stdout.readline, "")
            bound = next(line for line in lines if line.startswith("bound")).split()
            static = "169.254.169.254/32 10.0.0.2 10.7.0.0/16 10.0.0.9 0.0.0.0/0 10.0.0.1"
            expected = f"bound 10.0.0.11 24 10.0.0.1 10.0.0.53 9.9.9.9 1450 {static} web-1"
            assert " ".join(bound) in (expected, expected.replace(" 24 ", " 255.255.255.0 "))
            client.send_signal(signal.SIGUSR1)  # renew now
            assert next(line for line in lines if line.startswith("renew")).split()[1] == "10.0.0.11"
            # the server of another process of the same plan knows it too
            (pid,) = (int(one.read_text()) for one in host.directory.glob("*/pid"))
            os.kill(pid, signal.SIGKILL)
            w.wait_until(lambda: not w.is_running(pid))
            assert await host.driver.apply(plan) == ()
            client.send_signal(signal.SIGUSR1)
            assert next(line for line in lines if line.startswith("renew")).split()[1] == "10.0.0.11"


async def test_a_new_port_is_served_without_a_new_server_and_a_stranger_is_not() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        networks = (w.planned_network(),)
        await host.driver.apply(rig.plan(host, networks=networks, ports=(ONE,), groups=(OPEN,)))
        (pid,) = (one.read_text() for one in host.directory.glob("*/pid"))
        await host.driver.apply(rig.plan(host, 2, networks=networks, ports=(ONE, TWO), groups=(OPEN,)))
        assert [one.read_text() for one in host.directory.glob("*/pid")] == [pid]
        two = rig.guest(host, TWO, is_configured=False)
        two.plug()
        ask = ("busybox", "udhcpc", "-i", "eth0", "-s", "/bin/true", "-n", "-q", "-f", "-t", "3", "-T", "1")
        assert two.run(*ask).returncode == 0
        await host.driver.apply(
            rig.plan(
                host, 3, networks=networks, ports=(ONE, msgspec.structs.replace(TWO, fixed_ips=())), groups=(OPEN,)
            )
        )
        assert two.run(*ask).returncode != 0


async def test_an_address_is_leased_to_the_port_that_has_it_now() -> None:
    """Its first port is gone, without having given back its lease, and the host has kept others of that network."""
    async with w.Rig() as rig:
        host = rig.hosts[0]
        net = w.planned_network()
        await host.driver.apply(rig.plan(host, networks=(net,), ports=(ONE, TWO), groups=(OPEN,)))
        ask = ("busybox", "udhcpc", "-i", "eth0", "-s", "/bin/true", "-n", "-q", "-f", "-t", "3", "-T", "1")
        for port in (ONE, TWO):
            guest = rig.guest(host, port, is_configured=False)
            guest.plug()
            assert guest.run(*ask).returncode == 0
        await host.driver.apply(rig.plan(host, 2, networks=(net,), ports=(TWO,), groups=(OPEN,)))
        (given,) = host.directory.glob("*/leases")
        assert [line.split()[1] for line in given.read_text().splitlines()] == [TWO.mac], "nobody's is forgotten"
        heir = w.port(13, groups=(GROUP,), fixed_ips=ONE.fixed_ips)
        await host.driver.apply(rig.plan(host, 3, networks=(net,), ports=(TWO, heir), groups=(OPEN,)))
        guest = rig.guest(host, heir, is_configured=False)
        guest.plug()
        assert guest.run(*ask).returncode == 0
        other = w.port(14, groups=(GROUP,), fixed_ips=ONE.fixed_ips)
        await host.driver.apply(rig.plan(host, 4, networks=(net,), ports=(TWO, other), groups=(OPEN,)))
        guest = rig.guest(host, other, is_configured=False)
        guest.plug()
        assert guest.run(*ask).returncode == 0, "at once after another one"


def test_leases_of_which_version_is_kept() -> None:
    mine, another = "fa:16:3e:00:00:01", "fa:16:3e:00:00:02"
    before = f"{mine},set:s,10.0.0.3,g1\n{mine},set:t,[fd00::3],g1\n{another},set:t,[fd00::4]\n"
    now = f"{mine.upper()},set:s,10.0.0.3,g1\n{another},set:t,[fd00::3],g2\n{another},set:t,[fd00::4]\n"
    server = "duid 00:01:00:01:30:e5\n"
    four, three, stays = f"9 {mine} 10.0.0.3 g1 01:{mine}\n", "9 77 fd00::3 g1 00:03:01\n", "9 78 fd00::4 * 00:03:02\n"
    assert leases.kept(four + server + three + stays, before, now) == four + server + stays
    assert leases.kept(f"9 {another} 10.0.0.3 g1 *\n9 {mine} 10.0.0.9 g1 *\n", before, now) == ""
    assert leases.kept(three, "", now) == three, "an agent that has just begun knows no owner of before"


async def test_ipv6_by_router_advertisement_tells_prefix_and_mtu_and_no_router() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        own = msgspec.structs.replace(
            ONE, fixed_ips=(FixedIp(w.identity(1), "10.0.0.11"), FixedIp(w.identity(2), "fd00::5054:ff:fe00:b"))
        )
        await host.driver.apply(rig.plan(host, networks=(w.planned_network(),), ports=(own, TWO), groups=(OPEN,)))
        guest, other = rig.guest(host, own, is_configured=False), rig.guest(host, TWO)
        guest.plug()
        other.plug()

        def addresses() -> str:
            return guest.run("ip", "-6", "addr", "show", "dev", "eth0").stdout

        w.wait_until(lambda: "fd00::5054:ff:fe00:b/64" in addresses(), 15)
        assert other.pings("fd00::5054:ff:fe00:b", 3)
        assert guest.run("ip", "-6", "route", "show", "default").stdout == ""
        assert json.loads(guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu").stdout) == 1450


async def test_metadata_is_listened_for_in_each_network_alone() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        networks = (w.planned_network(), w.planned_network(2, vni=200, dhcp_mac="fa:16:3e:ff:ff:02"))
        other = w.port(211, 2, (GROUP,))
        await host.driver.apply(rig.plan(host, networks=networks, ports=(ONE, other), groups=(OPEN,)))
        for number, port in ((1, ONE), (2, other)):
            guest = rig.guest(host, port)
            guest.plug()
            network.build(guest.name, "route add 169.254.169.254/32 via 10.0.0.2")
            listening, listening6 = await host.driver.metadata_sockets(w.identity(number))
            with listening, listening6:
                code = "import socket; socket.create_connection(('169.254.169.254', 80), 2)"
                assert guest.run("python3", "-IS", "-c", code).returncode == 0
                accepted, peer = listening.accept()
                accepted.close()
                assert peer[0] == "10.0.0.11"  # both have that address: whose it is, the socket says
        places = await host.driver.metadata_networks()
        assert places.keys() == {w.identity(1), w.identity(2)} and len(set(places.values())) == 2
