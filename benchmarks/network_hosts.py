"""Networks on one host: how fast rules are in force, what they cost packets, and how soon all is right again.

Hosts are network namespaces with real bridges, tunnels and rules; guests are namespaces too, so that nothing hides what
the rules cost. Next to it the kernel alone, in the same run and turn by turn.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator

import msgspec

from benchmarks.claims import Claim, median, progress
from droveway.domain.network_plan import FixedIp, HostNetworks, PlannedPort, SecurityGroup
from droveway.drivers.network.bridge import kernel, rules
from lab import network
from tests.drivers import network_worlds as w

NEEDS = ("hosts", "iperf3")
PORTS, RULES, REBUILT_PORTS, MANY_PORTS = 100, 20, 200, 1000
TURNS, CHANGES, STREAMS, STREAM_S = 7, 30, 5, 2
PORT = 5201


def measure() -> Iterator[Claim]:
    if reason := w.obstacle():
        raise network.NetworkFailed(f"there can be no real networks here: {reason}")
    yield from asyncio.run(_in_force())
    yield from asyncio.run(_rebuilt())
    yield from asyncio.run(_packets())


def _ports(count: int) -> tuple[PlannedPort, ...]:
    """Each of a group of its own, as the dearest case has it."""
    return tuple(
        msgspec.structs.replace(
            w.port(1000 + number),
            mac=w.mac(1000 + number),
            fixed_ips=(FixedIp(w.identity(1), f"10.1.{number // 250}.{number % 250 + 1}"),),
            groups=(w.identity(5000 + number),),
        )
        for number in range(count)
    )


def _groups(count: int, each: int) -> tuple[SecurityGroup, ...]:
    """Rules with ports and remote networks of their own."""
    return tuple(
        w.group(5000 + number, *(w.tcp(1000 + 3 * k, remote_cidr=f"10.{k}.{number % 250}.0/24") for k in range(each)))
        for number in range(count)
    )


# -- rules ------------------------------------------------------------------------------------------------------------
async def _in_force() -> list[Claim]:
    progress(f"{PORTS} ports with {RULES} rules each, and one rule changed")
    at_once, changed, bare = [], [], []
    async with w.Rig() as rig:
        host = rig.hosts[0]
        closed = rig.plan(host, 1, networks=(w.planned_network(),), ports=_ports(PORTS), groups=_groups(PORTS, 0))
        revision = 1
        for turn in range(TURNS):
            revision += 1
            await host.driver.apply(msgspec.structs.replace(closed, revision=revision))
            groups = tuple(
                msgspec.structs.replace(one, rules=(*one.rules[:2], *(_other(rule, turn) for rule in one.rules[2:])))
                for one in _groups(PORTS, RULES)
            )
            opened = msgspec.structs.replace(closed, revision=revision + 1, groups=groups)
            revision += 1
            at_once.append(await _timed(host, opened))
            bare.append(await asyncio.to_thread(_bare, host, opened))
        for turn in range(CHANGES):
            revision += 1
            first = groups[0]
            more = msgspec.structs.replace(first, rules=(*first.rules, w.tcp(40_000 + turn)))
            changed.append(
                await _timed(host, msgspec.structs.replace(opened, revision=revision, groups=(more, *groups[1:])))
            )
            await asyncio.sleep(0.05)
    note = f"{PORTS} ports, each of a group of its own; nft -f of the same rules: {median(bare) * 1e3:.0f} ms"
    return [
        Claim(f"{PORTS} ports x {RULES} rules in force", median(at_once) * 1e3, 60, "ms", note),
        Claim(
            "one rule changed", median(changed) * 1e3, 5, "ms", f"of {PORTS * RULES}; worst {max(changed) * 1e3:.1f}"
        ),
    ]


def _other(rule: object, turn: int) -> object:
    """A rule that was never seen before, so that nothing of it is remembered."""
    return msgspec.structs.replace(rule, port_max=rule.port_min + turn % 2)  # type: ignore[attr-defined, type-var]


async def _timed(host: w.Host, plan: HostNetworks) -> float:
    began = time.perf_counter()
    failed = await host.driver.apply(plan)
    took_s = time.perf_counter() - began
    assert failed == (), failed
    return took_s


def _bare(host: w.Host, plan: HostNetworks) -> float:
    """nft alone with the text of it all, in a namespace of its own."""
    name = f"{host.name}bare"
    text = rules.whole(rules.ruleset(plan, {})[0])
    network.create(name)
    try:
        began = time.perf_counter()
        kernel.run("nft", "-f", "-", stdin=text, namespace=name)
        return time.perf_counter() - began
    finally:
        network.delete(name)


# -- after a death ----------------------------------------------------------------------------------------------------
async def _rebuilt() -> list[Claim]:
    progress(f"an agent of {REBUILT_PORTS} ports that begins anew")
    async with w.Rig() as rig:
        host = rig.hosts[0]
        pair = w.port(11, groups=(w.identity(1),)), w.port(12, groups=(w.identity(1),))
        plan = rig.plan(
            host,
            networks=(w.planned_network(),),
            ports=(*pair, *_ports(REBUILT_PORTS)),
            groups=(w.group(1, *w.PING), *_groups(REBUILT_PORTS, RULES)),
        )
        await host.driver.apply(plan)
        one, two = (rig.guest(host, port) for port in pair)
        one.plug()
        two.plug()
        one.pings("10.0.0.12")
        with one.pinging("10.0.0.12") as counted:
            await host.driver.close()
            host.driver = host.new_driver()
            began = time.perf_counter()
            await host.driver.open()
            await host.driver.apply(plan)
            took_s = time.perf_counter() - began
            await asyncio.sleep(0.2)
    note = f"{REBUILT_PORTS} ports x {RULES} rules; a ping every 5 ms, {counted['sent']} sent"
    return [
        Claim("an agent that begins anew: all compared and right", took_s, 5, "s", note),
        Claim("packets lost meanwhile", counted["lost"], 0, "", note),
    ]


# -- packets ----------------------------------------------------------------------------------------------------------
class _Pair:
    """Two hosts, a guest on each, and what they reach by TCP."""

    def __init__(self, client: list[str], server: list[str], address: str) -> None:
        self._client, self._server, self._address = client, server, address

    def gigabits(self) -> float:
        serving = subprocess.Popen(
            [*self._server, "iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.PIPE, cwd="/"
        )
        try:
            assert serving.stdout is not None
            time.sleep(0.3)
            done = subprocess.run(
                [*self._client, "iperf3", "-J", "-c", self._address, "-p", str(PORT), "-t", str(STREAM_S)],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
        finally:
            serving.kill()
            serving.communicate()


async def _packets() -> list[Claim]:
    progress("TCP between two hosts: with rules, with those of 1,000 ports, and over a bare VXLAN")
    found: dict[str, list[float]] = {"bare": [], "few": [], "many": []}
    async with w.Rig(2) as few, w.Rig(2) as many:
        bare = _bare_vxlan()
        pairs = {"few": await _guests(few, 10), "many": await _guests(many, MANY_PORTS), "bare": bare}
        try:
            for turn in range(STREAMS):
                for name in list(pairs) if turn % 2 else reversed(list(pairs)):
                    found[name].append(await asyncio.to_thread(pairs[name].gigabits))
        finally:
            for name in ("dwnb1", "dwnb2", "dwnb3", "dwnb4"):
                network.delete(name)
    ratios = [few / bare for few, bare in zip(found["few"], found["bare"], strict=True)]
    grown = [many / few for many, few in zip(found["many"], found["few"], strict=True)]
    note = f"{median(found['few']):.1f} Gb/s, bare VXLAN {median(found['bare']):.1f}; {STREAMS} x {STREAM_S} s in turn"
    return [
        Claim("TCP over VXLAN with rules, of bare VXLAN", median(ratios), 0.85, "x", note, is_floor=True),
        Claim(f"the same with {MANY_PORTS} ports, of that with 10", median(grown), 0.95, "x", "", is_floor=True),
    ]


async def _guests(rig: w.Rig, count: int) -> _Pair:
    made = []
    for host, other, number in ((rig.hosts[0], rig.hosts[1], 11), (rig.hosts[1], rig.hosts[0], 12)):
        peer, own = w.port(23 - number), w.port(number, groups=(w.identity(1),))
        net = w.planned_network(tunnel_addresses=(other.address,), remote_ports=(w.remote(peer, other.address),))
        groups = (w.group(1, w.tcp(PORT), *w.PING), *_groups(count, RULES))
        plan = rig.plan(host, networks=(net,), ports=(own, *_ports(count)), groups=groups)
        assert await host.driver.apply(plan) == ()
        made.append(rig.guest(host, own))
        made[-1].plug()
    assert made[0].pings("10.0.0.12", 3)
    return _Pair(made[0].command(), made[1].command(), "10.0.0.12")


def _bare_vxlan() -> _Pair:
    """The same bridges and tunnels by hand, without rules, and without nftables on the way."""
    hosts, guests = ("dwnb1", "dwnb2"), ("dwnb3", "dwnb4")
    for name in (*hosts, *guests):
        network.create(name)
    network.build(hosts[0], f"link add u0 type veth peer name u0 netns {hosts[1]}")
    for number, (host, guest) in enumerate(zip(hosts, guests, strict=True), 1):
        with kernel.inside(host):
            for family in ("iptables", "ip6tables", "arptables"):
                kernel.set_sysctl(f"bridge/bridge-nf-call-{family}", "0")
        network.build(
            host,
            f"addr add 192.0.2.{number}/24 dev u0",
            "link set u0 up",
            "link add name br0 type bridge",
            "link set dev br0 mtu 1450 up",
            f"link add name vx0 type vxlan id 7 dstport 4789 local 192.0.2.{number} remote 192.0.2.{3 - number}",
            "link set dev vx0 mtu 1450 master br0 up",
            f"link add name tap0 type veth peer name eth0 netns {guest}",
            "link set dev tap0 mtu 1450 master br0 up",
        )
        network.build(guest, "link set lo up", "link set eth0 mtu 1450 up", f"addr add 10.0.0.1{number}/24 dev eth0")
    enter = [["nsenter", f"--net={network.path(name)}", "--"] for name in guests]
    return _Pair(enter[0], enter[1], "10.0.0.12")
