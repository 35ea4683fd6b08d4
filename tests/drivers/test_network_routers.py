"""Routers of a host: between subnets, to the outside by SNAT, and floating addresses, with real packets.

Outside is a namespace at the other end of the external network's device: 203.0.113.1, and beyond it 198.51.100.1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from droveway.domain.network_plan import (
    FixedIp,
    HostNetworks,
    Ipv6Mode,
    PlannedRouter,
    RouterGateway,
    RouterLeg,
)
from droveway.drivers.network.bridge import kernel, names
from lab import network
from tests.drivers import network_worlds as w

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]

GROUP = w.identity(1)
OPEN = w.group(1, w.tcp(80), w.tcp(80, 6), *w.PING)
BLUE, EXTERNAL = 2, 9
ONE, TWO = w.port(11, groups=(GROUP,)), w.port(12, groups=(GROUP,))
OTHER = msgspec.structs.replace(
    w.port(213, BLUE, (GROUP,)), fixed_ips=(FixedIp(w.identity(21), "10.0.1.13"), FixedIp(w.identity(22), "fd01::13"))
)
RED_NET = w.planned_network(1, w.subnet(1), w.subnet(2, "fd00::/64", ipv6_mode=Ipv6Mode.SLAAC, gateway="fd00::1"))
BLUE_NET = w.planned_network(
    BLUE,
    w.subnet(21, "10.0.1.0/24"),
    w.subnet(22, "fd01::/64", gateway="fd01::1"),
    vni=200,
    dhcp_mac="fa:16:3e:ff:ff:02",
)
EXTERNAL_NET = w.planned_network(EXTERNAL, w.subnet(91, "203.0.113.0/24"), vni=0, physical_network="out", dhcp_mac="")
LEGS = (
    RouterLeg(w.identity(31), w.identity(1), "fa:16:3e:00:00:31", ("10.0.0.1/24", "fd00::1/64")),
    RouterLeg(w.identity(32), w.identity(BLUE), "fa:16:3e:00:00:32", ("10.0.1.1/24", "fd01::1/64")),
)
GATEWAY = RouterGateway(
    RouterLeg(w.identity(39), w.identity(EXTERNAL), "fa:16:3e:00:00:39", ("203.0.113.10/24",)), ("203.0.113.1",)
)
ROUTER = PlannedRouter(w.identity(40), LEGS, GATEWAY, floating=(("203.0.113.21", "10.0.0.11"),))


class Scene:
    def __init__(self, rig: w.Rig) -> None:
        self.rig, self.host = rig, rig.hosts[0]
        self.outside = w.Guest(self.host, msgspec.structs.replace(w.port(77), fixed_ips=()))
        rig.guests.append(self.outside)
        self.host.sh(f"ip link set {self.outside.port.device} name out0")
        network.build(
            self.outside.name,
            "addr add 203.0.113.1/24 dev eth0",
            "addr add 198.51.100.1/32 dev lo",
        )
        self.host.physical["out"] = "out0"
        self.host.driver = self.host.new_driver()

    def plan(self, revision: int = 1, router: PlannedRouter = ROUTER, **given: object) -> HostNetworks:
        values = {
            "networks": (RED_NET, BLUE_NET, EXTERNAL_NET),
            "ports": (ONE, TWO, OTHER),
            "groups": (OPEN,),
            "routers": (router,),
            **given,
        }
        return self.rig.plan(self.host, revision, **values)

    def guests(self) -> tuple[w.Guest, w.Guest, w.Guest]:
        made = []
        for port, front in ((ONE, 0), (TWO, 0), (OTHER, 1)):
            guest = self.rig.guest(self.host, port)
            guest.plug()
            network.build(
                guest.name,
                f"route add default via 10.0.{front}.1",
                f"route add ::/0 via fd0{front}::1",
            )
            made.append(guest)
        return made[0], made[1], made[2]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    rig = w.Rig()
    made = Scene(rig)
    async with rig:
        yield made


async def test_two_subnets_are_routed_in_both_ip_versions() -> None:
    async with scene() as it:
        assert await it.host.driver.apply(it.plan()) == ()
        one, _two, other = it.guests()
        assert one.pings("10.0.1.13") and other.pings("10.0.0.11")
        assert one.pings("fd01::13") and one.pings("10.0.0.1") and one.pings("fd00::1")
        with other.serving(80), other.serving(81):
            assert one.connects("10.0.1.13", 80) and not one.connects("10.0.1.13", 81, wait_s=0.4)
        await it.host.driver.apply(it.plan(2, msgspec.structs.replace(ROUTER, legs=LEGS[:1])))
        assert not one.pings("10.0.1.13", wait_s=0.4) and one.pings("10.0.0.1")
        await it.host.driver.apply(it.plan(3, routers=()))
        assert not one.pings("10.0.0.1", wait_s=0.4)
        assert not kernel.is_namespace(names.router_namespace_of(it.host.name, ROUTER.id))


async def test_guests_go_out_by_the_address_of_the_router() -> None:
    async with scene() as it:
        assert await it.host.driver.apply(it.plan()) == ()
        _one, two, _other = it.guests()
        with it.outside.serving(7, "c.sendall(c.getpeername()[0].encode())"):
            assert _peer_seen(two, "203.0.113.1") == "::ffff:203.0.113.10"
            assert _peer_seen(two, "198.51.100.1") == "::ffff:203.0.113.10"
            plain = msgspec.structs.replace(ROUTER, gateway=msgspec.structs.replace(GATEWAY, has_snat=False))
            await it.host.driver.apply(it.plan(2, plain))
            network.build(it.outside.name, "route add 10.0.0.0/24 via 203.0.113.10")
            assert _peer_seen(two, "203.0.113.1") == "::ffff:10.0.0.12"


async def test_a_floating_address_leads_in_and_out_and_back_to_its_own_network() -> None:
    async with scene() as it:
        assert await it.host.driver.apply(it.plan()) == ()
        one, two, _other = it.guests()
        with one.serving(80, "c.sendall(c.getpeername()[0].encode())"), one.serving(81):
            assert it.outside.pings("203.0.113.21")
            assert _peer_seen(it.outside, "203.0.113.21", 80) == "::ffff:203.0.113.1"
            assert not it.outside.connects("203.0.113.21", 81, wait_s=0.4)  # its group says so
            assert _peer_seen(two, "203.0.113.21", 80) == "::ffff:203.0.113.10"  # from its own network
            assert _peer_seen(one, "203.0.113.21", 80) == "::ffff:203.0.113.21"  # and from itself
        with it.outside.serving(7, "c.sendall(c.getpeername()[0].encode())"):
            assert _peer_seen(one, "203.0.113.1") == "::ffff:203.0.113.21"


async def test_a_floating_address_that_goes_takes_its_connections_along() -> None:
    async with scene() as it:
        await it.host.driver.apply(it.plan())
        one, two, _other = it.guests()
        code = (
            "import socket; s = socket.create_connection(('203.0.113.21', 80), 3); s.settimeout(2)\n"
            "while True: input(); s.sendall(b'.'); print(s.recv(1), flush=True)"
        )
        with one.serving(80, "[c.sendall(c.recv(1)) for _ in iter(int, 1)]"):
            process = w.talking(it.outside, code)
            with process as talk:
                assert talk() == "b'.'"
                moved = msgspec.structs.replace(ROUTER, floating=(("203.0.113.21", "10.0.0.12"),))
                await it.host.driver.apply(it.plan(2, moved))
                assert two.pings("203.0.113.1") and it.outside.pings("203.0.113.21")
                assert talk() == "b'.'"  # the address is still there: its connections go on
                await it.host.driver.apply(it.plan(3, msgspec.structs.replace(ROUTER, floating=())))
                assert talk() == ""


async def test_nothing_of_the_hosts_is_reached_through_a_router() -> None:
    async with scene() as it:
        await it.host.driver.apply(it.plan())
        _one, two, _other = it.guests()
        # Outside leads to the addresses of the hosts: here to its own, which stands for them.
        network.build(it.outside.name, f"addr add {it.host.address}/32 dev lo", "addr add 192.0.2.99/32 dev lo")
        assert two.pings("192.0.2.99")
        assert not two.pings(it.host.address, wait_s=0.4)
        with it.outside.serving(16514):
            assert two.connects("192.0.2.99", 16514) and not two.connects(it.host.address, 16514, wait_s=0.4)
        for address in ("10.0.0.1", "203.0.113.10"):  # the router itself has no services
            assert not two.connects(address, 22, wait_s=0.3)


async def test_extra_routes_and_router_advertisements() -> None:
    async with scene() as it:
        routes = (("172.16.0.0/16", "10.0.1.13"),)
        await it.host.driver.apply(it.plan(1, msgspec.structs.replace(ROUTER, routes=routes)))
        one, _two, other = it.guests()
        network.build(other.name, "addr add 172.16.0.1/16 dev lo")
        free = msgspec.structs.replace(OTHER, has_security=False)
        router = msgspec.structs.replace(ROUTER, routes=routes)
        await it.host.driver.apply(it.plan(2, router, ports=(ONE, TWO, free)))
        assert one.pings("172.16.0.1")
        fresh = msgspec.structs.replace(w.port(14, groups=(GROUP,)), fixed_ips=(FixedIp(w.identity(1), "10.0.0.14"),))
        await it.host.driver.apply(it.plan(3, router, ports=(ONE, TWO, free, fresh)))
        guest = it.rig.guest(it.host, fresh, is_configured=False)
        guest.plug()

        def ways_out() -> str:
            return guest.run("ip", "-6", "route", "show", "default").stdout

        w.wait_until(lambda: "default via fe80::f816:3eff:fe00:31" in ways_out(), 20)
        assert ways_out().count("default") == 1  # the DHCP server is none
        await it.host.driver.apply(it.plan(4, ROUTER, ports=(ONE, TWO, free)))
        assert not one.pings("172.16.0.1", wait_s=0.4)


async def test_a_router_that_cannot_be_is_named_and_the_others_go_on() -> None:
    async with scene() as it:
        elsewhere = RouterLeg(w.identity(33), w.identity(5), "fa:16:3e:00:00:33", ("10.0.5.1/24",))
        wrong = PlannedRouter(w.identity(41), (elsewhere,))
        failed = await it.host.driver.apply(it.plan(1, routers=(wrong, ROUTER)))
        assert [(one.kind, one.id) for one in failed] == [("router", w.identity(41))]
        assert failed[0].reason == f"its network {w.identity(5)} is not in the plan of this host"
        one, _two, _other = it.guests()
        assert one.pings("10.0.1.13")


async def test_a_router_is_mended_and_not_touched_when_it_is_right() -> None:
    async with scene() as it:
        await it.host.driver.apply(it.plan())
        one, _two, _other = it.guests()
        space = names.router_namespace_of(it.host.name, ROUTER.id)
        assert one.pings("203.0.113.1")
        with one.pinging("198.51.100.1") as counted:
            for _ in range(3):
                assert await it.host.driver.apply(it.plan()) == ()
        assert counted["sent"] > 30 and counted["lost"] == 0
        for harm in (
            f"ip -n {space} link del in{names.short(w.identity(31))}",
            f"ip -n {space} route del default",
            f"ip -n {space} addr flush dev out{names.short(w.identity(39))}",
            f"nsenter --net=/run/netns/{space} nft flush ruleset",
            f"nsenter --net=/run/netns/{space} sysctl -q -w net.ipv4.ip_forward=0",
            f"umount -l /run/netns/{space}",
        ):
            it.host.sh(harm)
            assert await it.host.driver.apply(it.plan()) == (), harm
            assert one.pings("198.51.100.1", 3), harm


def _peer_seen(guest: w.Guest, address: str, number: int = 7) -> str:
    """Whom the server there takes it for."""
    code = f"import socket; print(socket.create_connection(({address!r}, {number}), 3).recv(99).decode())"
    return guest.run("python3", "-IS", "-c", code).stdout.strip()
