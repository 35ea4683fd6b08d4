"""VXLAN between hosts whose links carry frames of different sizes."""

from __future__ import annotations

import pytest

from tests.drivers import network_worlds as w

pytestmark = [pytest.mark.lab, w.NEEDS_REAL_NETWORKS]

GROUP = w.identity(1)
OPEN = w.group(1, *w.PING)
WHOLE = ("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1422")  # 1450 bytes, in one piece


def set_mtu(host: w.Host, size: int) -> None:
    """Of both ends of its cable; the bridge in between takes what the smallest takes."""
    host.sh(f"ip link set eth0 mtu {size}")
    w.network.build(host.underlay, f"link set {host.name} mtu {size}")


async def test_a_link_that_is_too_small_is_named_and_a_large_one_harms_nobody() -> None:
    async with w.Rig(2) as rig:
        first, second = rig.hosts
        set_mtu(first, 9000)
        set_mtu(second, 1400)
        plans, guests = [], []
        for host, other, number in ((first, second, 11), (second, first, 12)):
            peer = w.port(23 - number, groups=(GROUP,))
            net = w.planned_network(tunnel_addresses=(other.address,), remote_ports=(w.remote(peer, other.address),))
            port = w.port(number, groups=(GROUP,))
            plans.append(rig.plan(host, networks=(net,), ports=(port,), groups=(OPEN,)))
            guests.append(rig.guest(host, port))
        assert await first.driver.apply(plans[0]) == ()
        (named,) = [one for one in await second.driver.apply(plans[1]) if one.kind == "network"]
        reason = "the MTU of eth0, which carries tunnels, is 1400 bytes; this network needs 1500"
        assert (named.id, named.reason) == (w.identity(1), reason)
        set_mtu(second, 1500)
        assert await second.driver.apply(plans[1]) == ()  # as the agent does it again and again
        for guest in guests:
            guest.plug()
        assert guests[0].run(*WHOLE, "10.0.0.12").returncode == 0
        assert guests[1].run(*WHOLE, "10.0.0.11").returncode == 0
        set_mtu(second, 1400)  # made smaller under it: it is said, and what fits goes on
        (named,) = [one for one in await second.driver.apply(plans[1]) if one.kind == "network"]
        assert named.reason == reason
        assert guests[0].pings("10.0.0.12") and guests[1].run(*WHOLE, "10.0.0.11").returncode != 0
