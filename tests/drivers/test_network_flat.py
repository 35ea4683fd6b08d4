"""Flat networks: the device or the bridge of a physical network, and what is no uplink."""

from __future__ import annotations

import msgspec
import pytest

from droveway.drivers.network.bridge import kernel
from tests.drivers import network_worlds as w

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]

GROUP = w.identity(1)
ONE = w.port(11, groups=(GROUP,))
OPEN = w.group(1, w.tcp(80), *w.PING)


async def test_a_flat_network_is_the_device_or_the_bridge_of_its_physical_network() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        outside = rig.guest(host, w.port(50))  # a machine of the physical network: its cable is no tap
        host.sh(f"ip link set {outside.port.device} name phys0")
        host.physical["physnet1"] = "phys0"
        await host.begin_anew()
        flat = w.planned_network(vni=0, physical_network="physnet1")
        plan = rig.plan(host, networks=(flat,), ports=(ONE,), groups=(OPEN,))
        assert await host.driver.apply(plan) == ()
        guest = rig.guest(host, ONE)
        guest.plug()
        assert guest.pings("10.0.0.50") and outside.pings("10.0.0.11")
        assert not outside.pings("10.0.0.2", wait_s=0.4)  # the server is for guests of this host
        code = (
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(2); s.bind(('', 67))\n"
            "print(flush=True)\ntry: print(len(s.recv(999)))\nexcept TimeoutError: print('nothing')"
        )
        with outside.started("python3", "-IS", "-c", code) as server:
            assert server.stdout is not None
            server.stdout.readline()
            guest.run("busybox", "udhcpc", "-i", "eth0", "-s", "/bin/true", "-n", "-q", "-f", "-t", "2", "-T", "1")
            assert server.stdout.readline() == "nothing\n"  # no other server is asked
        host.sh("ip link add br-ex type bridge; ip link set br-ex up; ip link set phys0 master br-ex")
        host.physical["physnet1"] = "br-ex"
        await host.begin_anew()
        assert await host.driver.apply(msgspec.structs.replace(plan, revision=2)) == ()
        assert guest.pings("10.0.0.50")
        await host.driver.apply(rig.plan(host, 3))
        assert "br-ex" in host.links() and not {name for name in host.links() if name.startswith("dwu")}


async def test_a_device_with_an_address_of_the_host_is_no_uplink() -> None:
    async with w.Rig() as rig:
        host = rig.hosts[0]
        host.physical.update(physnet1="eth0", physnet2="nosuch0")
        await host.begin_anew()
        networks = (
            w.planned_network(vni=0, physical_network="physnet1"),
            w.planned_network(2, vni=0, physical_network="physnet1"),
            w.planned_network(3, vni=0, physical_network="physnet2"),
            msgspec.structs.replace(w.planned_network(4), mtu_bytes=1500),
        )
        failed = await host.driver.apply(rig.plan(host, networks=networks, ports=(ONE,)))
        reasons = {one.id: one.reason for one in failed if one.kind == "network"}
        assert "has an address of this host" in reasons[w.identity(1)]
        assert f"carries network {w.identity(1)}" in reasons[w.identity(2)]
        assert "nosuch0 of its physical network is not there" in reasons[w.identity(3)]
        assert (
            "the MTU of eth0, which carries tunnels, is 1500 bytes; this network needs 1550" in reasons[w.identity(4)]
        )
        assert kernel.links(host.name)["eth0"].get("master") is None
