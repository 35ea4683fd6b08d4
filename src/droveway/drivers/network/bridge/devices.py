"""The bridges and tunnels of a host, of its plan, and what leads there from what the kernel has. Pure.

What the kernel has is what `ip -d -j addr` and `bridge -j fdb` print.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from droveway.domain.network_plan import HostNetworks, PlannedNetwork, bridge_of
from droveway.drivers.network.bridge import names
from droveway.drivers.network.bridge.rules import VXLAN_PORT

EVERYBODY = "00:00:00:00:00:00"  # where frames for a MAC go that is in no entry
Seen = Mapping[str, Mapping[str, Any]]  # by the name of the device
Forwarding = frozenset[tuple[str, str]]  # MAC, tunnel address


class Bridge(NamedTuple):
    """`uplink`: of a VXLAN network its tunnel device, of a flat one the device of its physical network."""

    network_id: str
    name: str
    mtu_bytes: int
    vni: int
    uplink: str
    local: str
    taps: tuple[str, ...]
    forwarding: Forwarding = frozenset()


def bridges(plan: HostNetworks, physical: Mapping[str, str]) -> dict[str, Bridge | str]:
    """By network; a text is why there can be none."""
    found: dict[str, Bridge | str] = {}
    taken: dict[str, str] = {}
    taps: dict[str, list[str]] = {}
    for port in plan.ports:
        taps.setdefault(port.network_id, []).append(port.device)
    for network in plan.networks:
        uplink = names.vxlan_of(network.id) if network.vni else physical.get(network.physical_network, "")
        why_not = _why_not(network, plan, uplink, taken)
        if why_not:
            found[network.id] = why_not
            continue
        taken[uplink] = network.id
        found[network.id] = Bridge(
            network.id,
            bridge_of(network.id),
            network.mtu_bytes,
            network.vni,
            uplink,
            plan.tunnel_address if network.vni else "",
            tuple(sorted(taps.get(network.id, ()))),
            forwarding(network) if network.vni else frozenset(),
        )
    return found


def _why_not(network: PlannedNetwork, plan: HostNetworks, uplink: str, taken: Mapping[str, str]) -> str:
    if network.vni and not plan.tunnel_address:
        return "this host has no tunnel_address, so it has no part in VXLAN networks: name one in its [[host]]"
    if not uplink and network.physical_network:
        return (
            f"physical network {network.physical_network} is not one of this host: name its device in physical_networks"
        )
    if uplink in taken and uplink:
        return f"the device {uplink} of physical network {network.physical_network} carries network {taken[uplink]}"
    return ""


def forwarding(network: PlannedNetwork) -> Forwarding:
    """Where frames go: those for the MAC of a port, to its host; those for everybody, to every host."""
    hosts = {address for address in network.tunnel_addresses if address}
    entries = {(port.mac, port.tunnel_address) for port in network.remote_ports}
    return frozenset({(EVERYBODY, address) for address in hosts} | {entry for entry in entries if all(entry)})


# -- what leads there -------------------------------------------------------------------------------------------------
def lines(bridge: Bridge, seen: Seen) -> tuple[list[str], str]:
    """Lines for `ip -batch`; and why it cannot be, or an empty text."""
    found = list(_bridge(bridge, seen))
    if bridge.vni:
        found += _vxlan(bridge, seen)
    elif bridge.uplink:
        why_not = _uplink_trouble(bridge, seen)
        if why_not:
            return [], why_not
        found += _physical(bridge, seen)
    for tap in bridge.taps:
        if tap in seen and seen[tap].get("master") != bridge.name:
            found.append(f"link set dev {tap} addrgenmode none mtu {bridge.mtu_bytes} master {bridge.name} up")
    return found, ""


def _bridge(bridge: Bridge, seen: Seen) -> Iterator[str]:
    there = seen.get(bridge.name)
    if there is None:
        yield f"link add name {bridge.name} type bridge mcast_snooping 0 stp_state 0"
        yield f"link set dev {bridge.name} addrgenmode none"
    if there is None or there.get("mtu") != bridge.mtu_bytes or not _is_up(there):
        yield f"link set dev {bridge.name} mtu {bridge.mtu_bytes} up"


def _vxlan(bridge: Bridge, seen: Seen) -> Iterator[str]:
    there = seen.get(bridge.uplink)
    if there is not None and not _is_that(bridge, there):
        yield f"link del dev {bridge.uplink}"
        there = None
    if there is None:
        yield (
            f"link add name {bridge.uplink} type vxlan id {bridge.vni} dstport {VXLAN_PORT} "
            f"local {bridge.local} nolearning"
        )
        yield f"link set dev {bridge.uplink} addrgenmode none"
    if there is None or not _is_plugged(there, bridge):
        yield f"link set dev {bridge.uplink} mtu {bridge.mtu_bytes} master {bridge.name} up"


def _is_that(bridge: Bridge, there: Mapping[str, Any]) -> bool:
    has = there.get("linkinfo", {}).get("info_data", {})
    return (has.get("id"), has.get("local", has.get("local6")), has.get("port")) == (
        bridge.vni,
        bridge.local,
        VXLAN_PORT,
    )


def _uplink_trouble(bridge: Bridge, seen: Seen) -> str:
    there = seen.get(bridge.uplink)
    if there is None:
        return f"the device {bridge.uplink} of its physical network is not there"
    if _is_bridge(there):
        return ""
    if any(address.get("scope") == "global" for address in there.get("addr_info", ())):
        return (
            f"the device {bridge.uplink} of its physical network has an address of this host: give the network a "
            "device of its own, or a bridge"
        )
    if there.get("master") not in (None, bridge.name):
        return f"the device {bridge.uplink} of its physical network is a part of {there['master']}"
    return ""


def _physical(bridge: Bridge, seen: Seen) -> Iterator[str]:
    """A device becomes a port of the bridge; a bridge that was there is joined to it by a cable."""
    if not _is_bridge(seen[bridge.uplink]):
        if not _is_plugged(seen[bridge.uplink], bridge, mtu=False):
            yield f"link set dev {bridge.uplink} master {bridge.name} up"
        return
    here, there = names.cable_of(bridge.network_id)
    if here not in seen or there not in seen:
        yield f"link add name {here} type veth peer name {there}"
        yield f"link set dev {here} addrgenmode none mtu {bridge.mtu_bytes}"
        yield f"link set dev {there} addrgenmode none mtu {bridge.mtu_bytes}"
    if here not in seen or not _is_plugged(seen[here], bridge, mtu=False):
        yield f"link set dev {here} master {bridge.name} up"
    if there not in seen or seen[there].get("master") != bridge.uplink or not _is_up(seen[there]):
        yield f"link set dev {there} master {bridge.uplink} up"


def _is_bridge(there: Mapping[str, Any]) -> bool:
    return bool(there.get("linkinfo", {}).get("info_kind") == "bridge")


def _is_up(there: Mapping[str, Any]) -> bool:
    return "UP" in there.get("flags", ())


def _is_plugged(there: Mapping[str, Any], bridge: Bridge, mtu: bool = True) -> bool:
    return _is_up(there) and there.get("master") == bridge.name and (not mtu or there.get("mtu") == bridge.mtu_bytes)


def forwarding_lines(bridge: Bridge, has: Forwarding) -> list[str]:
    """Lines for `bridge -batch`. A MAC that is at another host now is turned there by one step."""
    kept = {mac for mac, _ in bridge.forwarding if mac != EVERYBODY}
    device = bridge.uplink
    less = [
        f"fdb del {mac} dev {device} dst {to} self" for mac, to in sorted(has - bridge.forwarding) if mac not in kept
    ]
    more = [
        f"fdb {'append' if mac == EVERYBODY else 'replace'} {mac} dev {device} dst {to} self static"
        for mac, to in sorted(bridge.forwarding - has)
    ]
    return less + more


def forwarding_seen(entries: Iterable[Mapping[str, Any]]) -> dict[str, Forwarding]:
    """By device, of what `bridge -j fdb show` prints."""
    found: dict[str, set[tuple[str, str]]] = {}
    for entry in entries:
        if "dst" in entry:
            found.setdefault(entry["ifname"], set()).add((entry["mac"], entry["dst"]))
    return {device: frozenset(pairs) for device, pairs in found.items()}


def unwanted(seen: Seen, wanted: Iterable[str]) -> list[str]:
    """Devices of ours that nothing of the plan needs."""
    keep = set(wanted)
    return sorted(name for name in seen if name.startswith(names.OURS) and name not in keep)
