"""All facts about networks, kept from one look to the next, and the plan of each host made of them. Pure.

`domain/network/plan.py` says what a plan is and makes it of what was read for one host: that stays the truth. Here the
same plan is made of what has changed: a port that comes costs what it is itself, and what lists of others it is in;
nothing is sorted, compared or written down anew for it. Hosts that it does not concern keep the plan that they have.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from droveway.domain.network import plan
from droveway.domain.network.lists import Index, Members
from droveway.domain.network.plan import Facts, InterfaceFact, NetworkFact, PortFact, RouterFact, SubnetFact
from droveway.domain.network.rules import RuleSpec, planned
from droveway.domain.network_plan import (
    GroupRule,
    HostNetworks,
    PlannedNetwork,
    PlannedPort,
    PlannedRouter,
    RemotePort,
    SecurityGroup,
)

F = TypeVar("F")


class KnownPort(NamedTuple):
    port: PortFact
    interface: InterfaceFact


class GroupFact(NamedTuple):
    """`rules`: in the order of their meaning."""

    name: str
    rules: tuple[RuleSpec, ...]


class FloatingFact(NamedTuple):
    """One that leads somewhere."""

    router_id: str
    address: str
    fixed_address: str


class News(msgspec.Struct, frozen=True):
    """What has changed up to `revision`, whose last change has the number `last`: by id, None for what is gone.
    `tunnels` is whole, or None where it has not changed. `is_whole`: what is not named does not exist."""

    revision: int
    last: int
    is_whole: bool = False
    networks: Mapping[str, NetworkFact | None] = {}
    subnets: Mapping[str, SubnetFact | None] = {}
    ports: Mapping[str, KnownPort | None] = {}
    routers: Mapping[str, RouterFact | None] = {}
    floating: Mapping[str, FloatingFact | None] = {}
    groups: Mapping[str, GroupFact | None] = {}
    tunnels: Mapping[str, str] | None = None


class _Remote(NamedTuple):
    """A port that some host carries, in the order in which the others are told of it."""

    tunnel: str
    mac: str
    port_id: str
    host: str
    planned: RemotePort


class _Composed(NamedTuple):
    """The plan of a host, and what it was made of beside its own ports and routers."""

    plan: HostNetworks
    networks: frozenset[str]
    groups: frozenset[str]


class Picture:
    def __init__(self) -> None:
        self.revision, self.last = -1, 0
        self._networks: dict[str, NetworkFact] = {}
        self._subnets: dict[str, SubnetFact] = {}
        self._ports: dict[str, KnownPort] = {}
        self._routers: dict[str, RouterFact] = {}
        self._floating: dict[str, FloatingFact] = {}
        self._groups: dict[str, GroupFact] = {}
        self._tunnels: dict[str, str] = {}
        self._subnets_of: Index[SubnetFact] = Index()  # by network
        self._at: Index[KnownPort] = Index()  # guests' ports by host
        self._of_device: Index[PortFact] = Index()  # of routers and DHCP
        self._dhcp_of: Index[PortFact] = Index()  # by network
        self._routers_at: Index[RouterFact] = Index()  # by host
        self._floating_of: Index[FloatingFact] = Index()  # by router
        self._members: defaultdict[str, Members] = defaultdict(Members)
        self._remote: defaultdict[str, list[_Remote]] = defaultdict(list)  # by network
        self._remote_of: dict[str, tuple[str, _Remote]] = {}  # by port: network and entry
        # What was made of them, each as long as it is right.
        self._bare: dict[str, PlannedNetwork] = {}
        self._rules: dict[str, tuple[GroupRule, ...]] = {}
        self._planned: defaultdict[str, dict[str, tuple[KnownPort, bool, PlannedPort]]] = defaultdict(dict)  # by host
        self._made: dict[tuple[str, bool, bool], SecurityGroup] = {}
        self._composed: dict[str, _Composed] = {}

    def __len__(self) -> int:
        """Ports."""
        return len(self._ports)

    # -- what has changed ---------------------------------------------------------------------------------------------
    def take(self, news: News) -> None:
        """What is new, and what is no more; the same a second time changes nothing."""
        networks, groups, hosts = set[str](), set[str](), set[str]()
        tunnels = self._tunnels if news.tunnels is None else dict(news.tunnels)
        if tunnels != self._tunnels:
            self._tunnels = tunnels
            hosts |= self._composed.keys()
            for port_id in self._ports:
                self._place(port_id, networks)
        self._take_networks(news, networks)
        for router_id, router in news.routers.items():
            self._take_router(router_id, router, networks, hosts)
        for floating_id, floating in news.floating.items():
            self._take_floating(floating_id, floating, hosts)
        for group_id, group in news.groups.items():
            if group != self._groups.get(group_id):
                groups.add(group_id)
                self._rules.pop(group_id, None)
                _put(self._groups, group_id, group)
        for port_id, port in news.ports.items():
            self._take_port(port_id, port, networks, groups, hosts)
        for network_id in networks:
            self._bare.pop(network_id, None)
        for group_id in groups:
            for is_own, is_named in ((True, True), (True, False), (False, True)):
                self._made.pop((group_id, is_own, is_named), None)
        for host, made in list(self._composed.items()):
            if host in hosts or not made.networks.isdisjoint(networks) or not made.groups.isdisjoint(groups):
                del self._composed[host]
        self.revision, self.last = news.revision, news.last

    def _take_networks(self, news: News, networks: set[str]) -> None:
        for network_id, network in news.networks.items():
            if network != self._networks.get(network_id):
                networks.add(network_id)
                _put(self._networks, network_id, network)
        for subnet_id, subnet in news.subnets.items():
            old = self._subnets.get(subnet_id)
            if subnet == old:
                continue
            if old is not None:
                networks.add(old.network_id)
                self._subnets_of.remove(old.network_id, subnet_id)
            if subnet is not None:
                networks.add(subnet.network_id)
                self._subnets_of.add(subnet.network_id, subnet_id, subnet)
            _put(self._subnets, subnet_id, subnet)

    def _take_router(self, router_id: str, router: RouterFact | None, networks: set[str], hosts: set[str]) -> None:
        old = self._routers.get(router_id)
        if router == old:
            return
        if old is not None:
            hosts.add(old.host)
            self._routers_at.remove(old.host, router_id)
        if router is not None:
            hosts.add(router.host)
            self._routers_at.add(router.host, router_id, router)
        _put(self._routers, router_id, router)
        for port_id in self._of_device.of(router_id):
            self._place(port_id, networks)

    def _take_floating(self, floating_id: str, floating: FloatingFact | None, hosts: set[str]) -> None:
        old = self._floating.get(floating_id)
        if floating == old:
            return
        for one in (old, floating):
            if one is not None and one.router_id in self._routers:
                hosts.add(self._routers[one.router_id].host)
        if old is not None:
            self._floating_of.remove(old.router_id, floating_id)
        if floating is not None:
            self._floating_of.add(floating.router_id, floating_id, floating)
        _put(self._floating, floating_id, floating)

    def _take_port(
        self, port_id: str, known: KnownPort | None, networks: set[str], groups: set[str], hosts: set[str]
    ) -> None:
        old = self._ports.get(port_id)
        if known == old:
            return
        before = None if old is None else old.port
        if old is not None and before is not None:
            self._forget_port(before, networks, groups, hosts)
        if known is None:
            del self._ports[port_id]
            self._place(port_id, networks)
            return
        self._ports[port_id] = known
        port = known.port
        if port.is_of_guest:
            for host in port.hosts:
                hosts.add(host)
                self._at.add(host, port_id, known)
        else:
            self._of_device.add(port.device_id, port_id, port)
            self._mark_router(port, networks, hosts)
            if port.device_owner == plan.DHCP_OWNER:
                networks.add(port.network_id)
                self._dhcp_of.add(port.network_id, port_id, port)
        for group_id in port.groups:
            self._members[group_id].add(_sends_from(port))
        if before is None or (before.groups, _sends_from(before)) != (port.groups, _sends_from(port)):
            groups.update(port.groups)
        self._place(port_id, networks)

    def _forget_port(self, port: PortFact, networks: set[str], groups: set[str], hosts: set[str]) -> None:
        if port.is_of_guest:
            for host in port.hosts:
                hosts.add(host)
                self._at.remove(host, port.id)
                self._planned[host].pop(port.id, None)
                if not self._planned[host]:
                    del self._planned[host]
        else:
            self._of_device.remove(port.device_id, port.id)
            self._mark_router(port, networks, hosts)
            if port.device_owner == plan.DHCP_OWNER:
                networks.add(port.network_id)
                self._dhcp_of.remove(port.network_id, port.id)
        groups.update(port.groups)
        for group_id in port.groups:
            self._members[group_id].remove(_sends_from(port))
            if not self._members[group_id].all():
                del self._members[group_id]

    def _mark_router(self, port: PortFact, networks: set[str], hosts: set[str]) -> None:
        """One of its legs has changed: its place may have a network more, or one less."""
        router = self._routers.get(port.device_id)
        if router is not None:
            hosts.add(router.host)
            networks.add(port.network_id)

    def _place(self, port_id: str, networks: set[str]) -> None:
        """Where other hosts reach a port; of guests where these run, of routers where those are. DHCP is everywhere."""
        kept = self._remote_of.pop(port_id, None)
        new = None
        if (known := self._ports.get(port_id)) is not None:
            port = known.port
            if port.is_of_guest:
                host = port.hosts[0] if port.hosts else ""
            else:
                router = self._routers.get(port.device_id)
                host = "" if router is None else router.host
            tunnel = self._tunnels.get(host, "") if host and port.device_owner != plan.DHCP_OWNER else ""
            if tunnel:
                planned_port = RemotePort(port.mac, tuple(address for _, address in port.addresses), tunnel)
                new = port.network_id, _Remote(tunnel, port.mac, port_id, host, planned_port)
                self._remote_of[port_id] = new
        if kept == new:
            return
        for is_new, entry in ((False, kept), (True, new)):
            if entry is None:
                continue
            network_id, remote = entry
            networks.add(network_id)
            there = self._remote[network_id]
            if is_new:
                insort(there, remote, key=_order)
            else:
                del there[bisect_left(there, _order(remote), key=_order)]
                if not there:
                    del self._remote[network_id]

    # -- the plan of a host -------------------------------------------------------------------------------------------
    def plan_of(self, host: str) -> HostNetworks:
        made = self._composed.get(host)
        if made is None:
            made = self._composed[host] = self._make(host)
        return msgspec.structs.replace(made.plan, revision=self.revision)

    def forget(self, host: str) -> None:
        """Nobody asks for its plan any more."""
        self._composed.pop(host, None)
        self._planned.pop(host, None)

    def _make(self, host: str) -> _Composed:
        mine = self._at.of(host)
        routers = sorted(self._routers_at.of(host).values(), key=lambda one: one.id)
        legs = {router.id: list(self._of_device.of(router.id).values()) for router in routers}
        here = {known.port.network_id for known in mine.values()}
        here |= {leg.network_id for several in legs.values() for leg in several}
        own = {group for known in mine.values() if known.port.has_security for group in known.port.groups}
        named = {
            rule.remote_group_id
            for group in own & self._groups.keys()
            for rule in self._groups[group].rules
            if rule.remote_group_id
        }
        made = HostNetworks(
            0,
            self._tunnels.get(host, ""),
            tuple(sorted(address for name, address in self._tunnels.items() if name != host and address)),
            tuple(self._network(one, host) for one in sorted(here & self._networks.keys())),
            tuple(self._port(mine[port_id], host) for port_id in sorted(mine)),
            tuple(self._group(one, is_own=one in own, is_named=one in named) for one in sorted(own | named)),
            tuple(self._router(one, legs[one.id]) for one in routers if one.is_up),
        )
        return _Composed(made, frozenset(here), frozenset(own | named))

    def _network(self, network_id: str, host: str) -> PlannedNetwork:
        bare = self._bare.get(network_id)
        network = self._networks[network_id]
        if bare is None:
            subnets = list(self._subnets_of.of(network_id).values())
            served = list(self._dhcp_of.of(network_id).values())
            facts = Facts(0, [network], subnets, served)
            bare = self._bare[network_id] = plan.network_of(facts, network, host="", places={})
        if network.vni is None:
            return bare
        remote = [one for one in self._remote.get(network_id, ()) if one.host != host]
        return msgspec.structs.replace(
            bare,
            tunnel_addresses=tuple(sorted({one.tunnel for one in remote})),
            remote_ports=tuple([one.planned for one in remote]),
        )

    def _port(self, known: KnownPort, host: str) -> PlannedPort:
        port, is_up = known.port, self._networks[known.port.network_id].is_up
        kept = self._planned[host].get(port.id)
        if kept is not None and kept[0] is known and kept[1] is is_up:
            return kept[2]
        made = plan.port_of(port, known.interface, host, network_up=is_up)
        self._planned[host][port.id] = known, is_up, made
        return made

    def _group(self, group_id: str, *, is_own: bool, is_named: bool) -> SecurityGroup:
        key = group_id, is_own, is_named
        if key not in self._made:
            group = self._groups.get(group_id)
            if group is not None and group_id not in self._rules:
                self._rules[group_id] = tuple(planned(rule) for rule in group.rules)
            rules = self._rules[group_id] if is_own and group is not None else ()
            members = self._members[group_id].all() if is_named and group_id in self._members else ()
            self._made[key] = SecurityGroup(group_id, rules, members, group.name if is_own and group else "")
        return self._made[key]

    def _router(self, router: RouterFact, legs: list[PortFact]) -> PlannedRouter:
        subnets = [
            self._subnets[subnet_id] for leg in legs for subnet_id, _ in leg.addresses if subnet_id in self._subnets
        ]
        floating = tuple((one.address, one.fixed_address) for one in self._floating_of.of(router.id).values())
        whole = msgspec.structs.replace(router, floating=floating)
        return plan.router_of(Facts(0, subnets=subnets, ports=legs), whole)


def _put(there: dict[str, F], name: str, one: F | None) -> None:
    if one is None:
        there.pop(name, None)
    else:
        there[name] = one


def _sends_from(port: PortFact) -> tuple[str, ...]:
    return (*(address for _, address in port.addresses), *(cidr for cidr, _ in port.pairs))


def _order(one: _Remote) -> tuple[str, str, str]:
    return one.tunnel, one.mac, one.port_id
