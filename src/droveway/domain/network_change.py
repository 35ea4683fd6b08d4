"""What of a host's plan has changed since one that it has: so that a port which comes costs what it is itself, and not
what the whole network is. A host that has another plan than this begins from asks for the whole one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol, TypeVar

import msgspec

from droveway.domain.network_plan import Cidr, HostNetworks, Id, Mac, PlannedNetwork, SecurityGroup
from droveway.domain.wire import LIST, Number


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)
Ids = Annotated[tuple[Id, ...], LIST]


class Gone(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ids; and of networks and groups that stay: MACs of ports elsewhere, members."""

    networks: Ids = ()
    ports: Ids = ()
    groups: Ids = ()
    routers: Ids = ()
    remote: Annotated[tuple[tuple[Id, Annotated[tuple[Mac, ...], LIST]], ...], LIST] = ()
    members: Annotated[tuple[tuple[Id, Annotated[tuple[Cidr, ...], LIST]], ...], LIST] = ()


class PlanChange(msgspec.Struct, frozen=True):
    """`base`: the revision that it begins from. `new`: a plan of what is new or other alone; of a network that was
    there so are its remote ports, of a group its members."""

    base: Number
    new: HostNetworks
    gone: Gone = Gone()

    @property
    def size(self) -> int:
        """Things in it."""
        new, gone = self.new, self.gone
        whole = (new.networks, new.ports, new.groups, new.routers, gone.networks, gone.ports, gone.groups, gone.routers)
        return (
            sum(map(len, whole))
            + sum(len(one.remote_ports) for one in new.networks)
            + sum(len(one.members) + len(one.rules) for one in new.groups)
            + sum(len(those) for _, those in (*gone.remote, *gone.members))
        )


def between(old: HostNetworks, new: HostNetworks) -> PlanChange:
    """What makes the one of the other."""
    networks, groups = {one.id: one for one in old.networks}, {one.id: one for one in old.groups}
    other_networks, other_groups = _others(old.networks, new.networks), _others(old.groups, new.groups)
    remote, members = [], []
    for network in other_networks:
        if network.id in networks:
            left = {one.mac for one in networks[network.id].remote_ports} - {one.mac for one in network.remote_ports}
            remote.append((network.id, tuple(sorted(left))))
    for group in other_groups:
        if group.id in groups:
            members.append((group.id, tuple(sorted(set(groups[group.id].members).difference(group.members)))))
    return PlanChange(
        old.revision,
        msgspec.structs.replace(
            new,
            networks=tuple(_less_remote(networks.get(one.id), one) for one in other_networks),
            ports=tuple(_others(old.ports, new.ports)),
            groups=tuple(_less_members(groups.get(one.id), one) for one in other_groups),
            routers=tuple(_others(old.routers, new.routers)),
        ),
        Gone(
            _left(old.networks, new.networks),
            _left(old.ports, new.ports),
            _left(old.groups, new.groups),
            _left(old.routers, new.routers),
            tuple(one for one in remote if one[1]),
            tuple(one for one in members if one[1]),
        ),
    )


def applied(old: HostNetworks, change: PlanChange) -> HostNetworks:
    """The plan that the change leads to; `old` is of its base."""
    assert old.revision == change.base, f"it begins from {change.base}, and not from {old.revision}"
    networks, groups = {one.id: one for one in old.networks}, {one.id: one for one in old.groups}
    remote, members = dict(change.gone.remote), dict(change.gone.members)
    new, gone = change.new, change.gone
    merged_networks = [_with_remote(networks.get(one.id), one, remote.get(one.id, ())) for one in new.networks]
    merged_groups = [_with_members(groups.get(one.id), one, members.get(one.id, ())) for one in new.groups]
    return msgspec.structs.replace(
        new,
        networks=_merged(old.networks, merged_networks, gone.networks),
        ports=_merged(old.ports, new.ports, gone.ports),
        groups=_merged(old.groups, merged_groups, gone.groups),
        routers=_merged(old.routers, new.routers, gone.routers),
    )


def _others(old: Iterable[T], new: Iterable[T]) -> list[T]:
    before = {one.id: one for one in old}
    return [one for one in new if (was := before.get(one.id)) is not one and was != one]


def _left(old: Iterable[_HasId], new: Iterable[_HasId]) -> tuple[str, ...]:
    return tuple(sorted({one.id for one in old} - {one.id for one in new}))


def _merged(old: Sequence[T], new: Iterable[T], gone: Iterable[str]) -> tuple[T, ...]:
    found = {one.id: one for one in old} | {one.id: one for one in new}
    for name in gone:
        found.pop(name, None)
    return tuple(found[name] for name in sorted(found))


def _less_remote(old: PlannedNetwork | None, new: PlannedNetwork) -> PlannedNetwork:
    if old is None:
        return new
    before = {one.mac: one for one in old.remote_ports}
    other = tuple(one for one in new.remote_ports if (was := before.get(one.mac)) is not one and was != one)
    return msgspec.structs.replace(new, remote_ports=other)


def _with_remote(old: PlannedNetwork | None, new: PlannedNetwork, gone: Iterable[str]) -> PlannedNetwork:
    if old is None:
        return new
    found = {one.mac: one for one in old.remote_ports} | {one.mac: one for one in new.remote_ports}
    for mac in gone:
        found.pop(mac, None)
    there = tuple(sorted(found.values(), key=lambda one: (one.tunnel_address, one.mac)))
    return msgspec.structs.replace(new, remote_ports=there)


def _less_members(old: SecurityGroup | None, new: SecurityGroup) -> SecurityGroup:
    if old is None:
        return new
    before = set(old.members)
    return msgspec.structs.replace(new, members=tuple(one for one in new.members if one not in before))


def _with_members(old: SecurityGroup | None, new: SecurityGroup, gone: Iterable[str]) -> SecurityGroup:
    if old is None:
        return new
    return msgspec.structs.replace(new, members=tuple(sorted({*old.members, *new.members}.difference(gone))))
