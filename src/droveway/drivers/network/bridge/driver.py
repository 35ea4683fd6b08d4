"""The networks of one host, of Linux bridges, VXLAN, nftables, dnsmasq and network namespaces.

One thread does all that blocks, in the network namespace of the host; `apply` is the whole story. The rules come first:
they drop what they do not know, so nothing is open before them and nothing is reachable after its rules have gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from droveway.domain.network_plan import (
    METADATA,
    METADATA6,
    HostNetworks,
    NotInForce,
    PlannedPort,
    RuleDirection,
    bridge_of,
)
from droveway.drivers.network.bridge import connections, devices, kernel, names, namespaces, rules
from droveway.drivers.network.bridge.devices import Bridge, Seen
from droveway.drivers.network.bridge.namespaces import Namespace
from droveway.drivers.network.bridge.nftables import Nftables
from droveway.drivers.network.bridge.servers import Servers
from droveway.ports.network import NetworkRefused

T = TypeVar("T")
log = structlog.get_logger("droveway.network")
WITHOUT_BR_NETFILTER = (
    "the kernel passes no bridged packets to nftables: load the module br_netfilter (modprobe br_netfilter, and a line "
    "in /etc/modules)"
)


class BridgeNetwork:
    """`physical`: the device of each physical network. `directory`: of what dnsmasq reads, lost at a reboot.
    `namespace`: a path, where the host is a network namespace that this process is not in."""

    def __init__(self, host: str, physical: Mapping[str, str], directory: Path, namespace: str = "") -> None:
        self._host, self._physical, self._namespace = host, dict(physical), namespace
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"network of {host}")
        self._servers = Servers(directory)
        self._nftables: Nftables | None = None
        self._watch: kernel.LinkWatch | None = None
        self._loaded: tuple[rules.Ruleset, int] | None = None  # and the generation of the kernel's rules then
        self._plan = HostNetworks(-1, "")
        self._may_revive = False
        self._has_cut = True  # connections, as far as is known; the packets that lost their rule, by the counter
        self._cut_packets = 0
        self._made: tuple[dict[str, Bridge | str], dict[str, Namespace | NotInForce]] | None = (
            None  # and made, all of it
        )

    async def _do(self, call: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *given))

    # -- open and close -----------------------------------------------------------------------------------------------
    async def open(self) -> None:
        await self._do(self._open)

    def _open(self) -> None:
        if missing := kernel.missing_programs():
            raise NetworkRefused(missing)
        if self._namespace:
            kernel.enter(self._namespace)
        self._nftables, self._watch = Nftables(), kernel.LinkWatch()
        try:
            self._nftables.generation()
            self._prepare()
        except OSError as error:
            raise NetworkRefused(f"this process may not change networks ({error.strerror}): it must be root") from None

    def _prepare(self) -> None:
        place = Path("/proc/sys/net/bridge")
        if not place.is_dir():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["modprobe", "br_netfilter"], capture_output=True, timeout=10, check=False)
        if not place.is_dir():
            raise NetworkRefused(WITHOUT_BR_NETFILTER)
        for name in ("iptables", "ip6tables", "arptables"):
            kernel.set_sysctl(f"bridge/bridge-nf-call-{name}", "1" if name != "arptables" else "0")

    async def close(self) -> None:
        await self._do(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._servers.close()
        for opened in (self._nftables, self._watch):
            if opened is not None:
                opened.close()
        self._nftables = self._watch = None

    # -- apply --------------------------------------------------------------------------------------------------------
    async def apply(self, plan: HostNetworks) -> tuple[NotInForce, ...]:
        failed = await self._do(self._apply, plan)
        if self._may_revive:
            # Nobody waits for it: only connections that were cut before do.
            self._thread.submit(_quietly, self._revive)
        return failed

    def _revive(self) -> None:
        """Of a connection that was cut and may go on, one end may be silent: answers alone do not clear its mark. So it
        is tracked anew; conntrack changes no mark in place."""
        assert self._nftables is not None, "open() first"
        cut = self._nftables.packets("droveway", rules.CUT)
        refused: dict[connections.Flow, set[RuleDirection]] = {}
        for family in ("ipv4", "ipv6"):
            for bit, direction in connections.BITS.items():
                text = kernel.run("conntrack", "-L", "-f", family, "-m", f"{bit}/{bit}", "-o", "save")
                for flow in connections.flows(text):
                    refused.setdefault(flow, set()).add(direction)
        self._has_cut, self._cut_packets = bool(refused), cut
        for flow in connections.let_through_again(refused, self._plan, rules.zones(self._plan.networks)):
            kernel.run("conntrack", "-D", "-f", "ipv6" if ":" in flow.source else "ipv4", *flow.words)
            _load_connections(f"{flow.line}\n")

    def _apply(self, plan: HostNetworks) -> tuple[NotInForce, ...]:
        assert self._watch is not None, "open() first"
        plan = _as_known(plan, self._plan)
        is_newer = plan.revision != self._plan.revision
        failed = list(self._put_rules(plan))
        if is_newer and self._made and _but_for_rules(plan) == _but_for_rules(self._plan):
            wanted = self._made
        else:
            bridges = devices.bridges(plan, self._physical)
            wanted = bridges, self._namespaces(plan, bridges)
        if is_newer and wanted == self._made and not self._watch.has_changed():
            self._plan = plan
            return tuple(failed)
        troubles = self._make(*wanted)
        self._plan, self._made = plan, None if troubles else wanted
        self._watch.has_changed()  # that was this
        return (*failed, *troubles)

    def _put_rules(self, plan: HostNetworks) -> tuple[NotInForce, ...]:
        assert self._nftables is not None, "open() first"
        wanted, failed = rules.ruleset(plan, self._physical)
        before = self._nftables.generation()
        self._may_revive = False
        is_known = self._loaded is not None and self._loaded[1] == before
        commands = rules.change(self._loaded[0], wanted) if is_known and self._loaded else rules.whole(wanted)
        try:
            if commands:
                self._nftables.run(commands)
                self._has_cut |= not is_known or self._nftables.packets("droveway", rules.CUT) != self._cut_packets
                self._may_revive = self._has_cut and "\nadd " in f"\n{commands}"
        except NetworkRefused as fault:
            self._loaded = None
            return tuple(NotInForce("port", port.id, fault.reason) for port in plan.ports)
        after = self._nftables.generation()
        # A transaction of another program in between may have changed ours.
        self._loaded = (wanted, after) if after == before + bool(commands) else None
        return failed

    def _namespaces(self, plan: HostNetworks, bridges: Mapping[str, Bridge | str]) -> dict[str, Namespace | NotInForce]:
        """By name."""
        found: dict[str, Namespace | NotInForce] = {}
        ports: dict[str, list[PlannedPort]] = {}
        for port in plan.ports:
            ports.setdefault(port.network_id, []).append(port)
        for network in plan.networks:
            if namespaces.is_served(network) and isinstance(bridges[network.id], Bridge):
                name = names.dhcp_namespace_of(self._host, network.id)
                found[name] = _or_why("network", namespaces.of_network, network, ports.get(network.id, []), self._host)
        for router in plan.routers:
            name = names.router_namespace_of(self._host, router.id)
            found[name] = _or_why("router", namespaces.of_router, router, plan, self._host)
        return found

    def _make(self, bridges: dict[str, Bridge | str], wanted: dict[str, Namespace | NotInForce]) -> list[NotInForce]:
        """One thing that fails keeps no other away."""
        failed: list[NotInForce] = []
        seen = kernel.links()
        self._remove_unwanted(bridges, wanted, seen)
        for network_id, bridge in bridges.items():
            if isinstance(bridge, str):
                failed.append(NotInForce("network", network_id, bridge))
            elif reason := _why_failed(self._make_bridge, bridge, seen):
                failed.append(NotInForce("network", network_id, reason))
        without_bridge = {one.id for one in failed}  # each with its reason: that nothing is forwarded follows from it
        failed += [one for one in self._forward(bridges) if one.id not in without_bridge]
        without_bridge = {one.id for one in failed}
        for namespace in wanted.values():
            if isinstance(namespace, NotInForce):
                failed.append(namespace)
            elif namespace.id in without_bridge:
                continue
            elif reason := _why_failed(self._servers.make, namespace, seen):
                failed.append(NotInForce(namespace.kind, namespace.id, reason))
        return failed

    def _make_bridge(self, bridge: Bridge, seen: Seen) -> None:
        lines, why_not = devices.lines(bridge, seen)
        if why_not:
            raise NetworkRefused(why_not)
        if bridge.vni:
            _must_carry(bridge, seen)
        kernel.change_links(lines)

    def _forward(self, bridges: Mapping[str, Bridge | str]) -> list[NotInForce]:
        tunnels = [one for one in bridges.values() if isinstance(one, Bridge) and one.vni]
        if not tunnels:
            return []
        has = devices.forwarding_seen(kernel.forwarding())
        failed = []
        for bridge in tunnels:
            lines = devices.forwarding_lines(bridge, has.get(bridge.uplink, frozenset()))
            if reason := _why_failed(kernel.change_forwarding, lines):
                failed.append(NotInForce("network", bridge.network_id, reason))
        return failed

    def _remove_unwanted(
        self, bridges: Mapping[str, Bridge | str], wanted: Mapping[str, Namespace | NotInForce], seen: dict[str, Any]
    ) -> None:
        for name in sorted(self._servers.left(self._prefixes()) - wanted.keys()):
            self._servers.remove(name)
        needed = [leg.outer for one in wanted.values() if isinstance(one, Namespace) for leg in one.legs]
        for one in bridges.values():
            if isinstance(one, Bridge):
                needed += [one.name, one.uplink, *(() if one.vni else names.cable_of(one.network_id))]
        for name in devices.unwanted(seen, needed):
            with contextlib.suppress(NetworkRefused):  # the other end of its cable went first
                kernel.change_links([f"link del dev {name}"])
            del seen[name]

    def _prefixes(self) -> tuple[str, str]:
        tag = names.host_tag(self._host)
        return f"dwd-{tag}-", f"dwr-{tag}-"

    # -- what else is asked -------------------------------------------------------------------------------------------
    async def bridge_of(self, network_id: str) -> str:
        name = bridge_of(network_id)
        if not await self._do(kernel.has_device, name):
            raise NetworkRefused(f"network {network_id} is not on host {self._host}")
        return name

    async def metadata_sockets(self, network_id: str) -> tuple[socket.socket, ...]:
        return await self._do(self._metadata_sockets, network_id)

    def _metadata_sockets(self, network_id: str) -> tuple[socket.socket, ...]:
        name = names.dhcp_namespace_of(self._host, network_id)
        if not kernel.is_namespace(name):
            raise NetworkRefused(f"network {network_id} has no DHCP server on host {self._host}")
        with kernel.inside(name):
            first = kernel.listen(METADATA, 80)
            try:
                return first, kernel.listen(METADATA6, 80, namespaces.DHCP_DEVICE)
            except NetworkRefused:
                first.close()
                raise

    async def metadata_networks(self) -> dict[str, str]:
        served = {
            one.id: names.dhcp_namespace_of(self._host, one.id)
            for one in self._plan.networks
            if namespaces.is_served(one)
        }
        places = await self._do(lambda: {one: kernel.identity_of(name) for one, name in served.items()})
        return {one: place for one, place in places.items() if place}

    async def connections(self, port_id: str) -> str:
        port, zone = self._tracked(port_id)
        texts = [
            await self._do(kernel.run, "conntrack", "-L", "-f", family, "-w", str(zone), "-o", "save")
            for family in ("ipv4", "ipv6")
        ]
        lines = [line for text in texts for line in text.splitlines()]
        return connections.of_port(lines, [ip.address for ip in port.fixed_ips])

    async def restore_connections(self, port_id: str, saved: str) -> None:
        port, zone = self._tracked(port_id)
        text = connections.in_zone(saved, [ip.address for ip in port.fixed_ips], zone)
        if text:
            await self._do(_load_connections, text)

    def _tracked(self, port_id: str) -> tuple[PlannedPort, int]:
        for port in self._plan.ports:
            if port.id == port_id:
                return port, rules.zones(self._plan.networks)[port.network_id]
        raise NetworkRefused(f"port {port_id} is not on host {self._host}")

    async def remove_all(self) -> None:
        await self._do(self._remove_all)

    def _remove_all(self) -> None:
        assert self._nftables is not None, "open() first"
        self._remove_unwanted({}, {}, kernel.links())
        self._nftables.run("".join(f"add table {one}\ndelete table {one}\n" for one in (rules.BRIDGE, rules.INET)))
        self._loaded, self._made, self._plan = None, None, HostNetworks(-1, "")


def _but_for_rules(plan: HostNetworks) -> HostNetworks:
    """What devices and namespaces are made of."""
    return msgspec.structs.replace(plan, revision=0, groups=())


def _as_known(plan: HostNetworks, before: HostNetworks) -> HostNetworks:
    """The same plan, with the groups of the one before where they are equal: what was made of those is remembered, and
    is found by an object that knows its hash."""
    known = {group.id: group for group in before.groups}
    groups = tuple(one if (same := known.get(one.id)) is None or same != one else same for one in plan.groups)
    return msgspec.structs.replace(plan, groups=groups)


def _quietly(call: Callable[[], None]) -> None:
    try:
        call()
    except NetworkRefused as fault:
        log.warning("connections that may go on again stay cut", because=fault.reason)


def _or_why(kind: str, make: Callable[..., Namespace], thing: Any, *given: Any) -> Namespace | NotInForce:
    try:
        return make(thing, *given)
    except ValueError as error:
        return NotInForce(kind, thing.id, str(error))


def _why_failed(make: Callable[..., None], *given: Any) -> str:
    try:
        make(*given)
    except NetworkRefused as fault:
        return fault.reason
    except OSError as error:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error)
    return ""


def _must_carry(bridge: Bridge, seen: Seen) -> None:
    """Frames of the network must fit into the underlay's, or they are lost without a word."""
    for name, there in seen.items():
        if any(address.get("local") == bridge.local for address in there.get("addr_info", ())):
            needed = bridge.mtu_bytes + (50 if ":" not in bridge.local else 70)
            if there["mtu"] < needed:
                raise NetworkRefused(
                    f"the MTU of {name}, which carries tunnels, is {there['mtu']} bytes; this network needs {needed}"
                )
            return
    raise NetworkRefused(f"no device of this host has the tunnel address {bridge.local}")


def _load_connections(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="droveway-connections-") as kept:
        kept.write(text)
        kept.flush()
        kernel.run("conntrack", "--load-file", kept.name)
