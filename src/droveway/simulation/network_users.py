"""Users of networks: they make and change networks, ports, groups, routers and floating IPs through the API, and take
them away, be they in use or not. What they are told is held against the rows."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table, bindparam, select

from droveway.domain.network_plan import GroupRule, RuleDirection
from droveway.simulation.client import Client, Reply
from droveway.simulation.guest_networks import PHYSICAL
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.tables import (
    floating_ips,
    networks,
    port_groups,
    ports,
    routers,
    security_group_rules,
    security_groups,
    subnets,
)

if TYPE_CHECKING:
    from droveway.simulation.world import World

NET = "/network/v2.0"
PAUSE_S = 1.0
NETWORKS_MOST, GROUPS_MOST, PORTS_MOST, ROUTERS_MOST = 4, 4, 16, 3
ON_NETWORKS, GIVEN, TWO = 0.75, 0.3, 0.2  # of the servers; of their interfaces; of those servers
SAME_ADDRESS = 0.3  # of the ports
EXTERNAL = {
    "router:external": True,
    "shared": True,
    "provider:network_type": "flat",
    "provider:physical_network": PHYSICAL,
}
TRIES = 30
c = ports.c
_FREE = (c.device_id == "", c.device_owner == "")
_OF_GUESTS = c.device_owner.startswith("compute:")
_OF_ROUTERS = c.device_owner == "network:router_interface"
_EXTERNAL = networks.c.external.is_(True)
_BARE = networks.c.id.not_in(select(subnets.c.network_id))
_IN_USE = security_groups.c.id.in_(
    select(port_groups.c.group_id).join(ports, c.id == port_groups.c.port_id).where(c.host != "")
)
_NAMES_ANOTHER = security_group_rules.c.remote_group_id.is_not(None)
_INTERFACES = Prepared(select(c.device_id, c.id).where(_OF_ROUTERS).order_by(c.id))
_DEVICE_OF = Prepared(select(c.device_id).where(c.id == bindparam("of")))
LIVES_APART = {  # what a user can take away by itself, the last made first
    "floatingips": (floating_ips, ()),
    "security-group-rules": (security_group_rules, ()),
    "security-groups": (security_groups, (security_groups.c.name != "default",)),
    "ports": (ports, (~c.device_owner.startswith("network:"),)),
    "networks": (networks, ()),
}


class NetworkUsers:
    """One person with a hand in everything. `stop` and then `remove_all`."""

    def __init__(self, world: World) -> None:
        assert world.networks is not None, "it has networks"
        self._world, self._own, self._rng = world, world.networks, world.networks.rng
        self._client, self._made, self._stopped = Client(world), 0, False
        self._acts = {
            self._make_network: 8,
            self._make_port: 20,
            self._move_address: 6,
            self._make_group: 6,
            self._make_rule: 20,
            self._change_groups: 8,
            self._make_router: 6,
            self._add_interface: 10,
            self._remove_interface: 4,
            self._make_floating: 8,
            self._lead_floating: 6,
            self._take_away: 16,
        }
        world.loop.create_task(self._person(), name="user of networks")

    async def _begin(self) -> None:
        """What most have: a way out, and a network and a group of their own."""
        await self._make("networks", "network", {"name": "outside", **EXTERNAL})
        for act in (self._make_network, self._make_network, self._make_group, self._make_rule, self._make_router):
            await act()

    def stop(self) -> None:
        self._stopped = True

    async def _person(self) -> None:
        await self._begin()
        while not self._stopped:
            await asyncio.sleep(self._rng.expovariate(1.0 / PAUSE_S))
            if not self._stopped:
                (act,) = self._rng.choices(list(self._acts), list(self._acts.values()))
                await act()

    # -- asking -------------------------------------------------------------------------------------------------------
    async def _ask(self, method: str, path: str, body: Any = None) -> Reply:
        control = self._client.any_control()
        if control is None:
            return Reply(0)
        reply = await self._client.ask(control, method, f"{NET}/{path}", body)
        what = path.partition("/")[0]
        self._world.counts[f"asked to {method} {what}: {reply.word}"] += 1
        self._world.trace.note(f"user of networks {method} {path} by {control.name}: {reply.word}")
        return reply

    async def _make(self, path: str, single: str, given: dict[str, Any]) -> dict[str, Any] | None:
        reply = await self._ask("POST", path, {single: given})
        return reply.body[single] if reply.is_ok else None

    def _ids(self, table: Table, *where: ColumnElement[bool]) -> list[str]:
        query = _ids_of(table, where)
        return self._world.database.look(lambda tx: list(tx.execute(query).scalars()))

    def _any(self, table: Table, *where: ColumnElement[bool]) -> str | None:
        found = self._ids(table, *where)
        return self._rng.choice(found) if found else None

    # -- networks and ports -------------------------------------------------------------------------------------------
    async def _make_network(self) -> None:
        """With a subnet; or one for a network that has none yet, as where its client died in between."""
        bare = self._any(networks, _BARE)
        network_id = bare
        if bare is None and len(self._ids(networks)) < NETWORKS_MOST:
            self._made += 1
            made = await self._make("networks", "network", {"name": f"net{self._made}"})
            network_id = None if made is None else made["id"]
        if network_id is not None:
            cidr = self._rng.choice(["10.0.0.0/24", "10.0.0.0/28", "10.0.1.0/24", "fd00::/64"])
            given = {"network_id": network_id, "cidr": cidr, "ip_version": 6 if ":" in cidr else 4}
            await self._make("subnets", "subnet", given)

    async def _make_port(self) -> None:
        """Sometimes with an address that another one may want, or have."""
        network_id = self._any(networks)
        if network_id is not None and len(self._ids(ports, *_FREE)) < PORTS_MOST:
            given: dict[str, Any] = {"network_id": network_id}
            if self._rng.random() < SAME_ADDRESS:
                given["fixed_ips"] = [{"ip_address": f"10.0.0.{self._rng.randint(2, 9)}"}]
            group = self._any(security_groups)
            if group is not None and self._rng.random() < 0.6:
                given["security_groups"] = [group]
            self._note(await self._make("ports", "port", given))

    async def _move_address(self) -> None:
        port_id = self._any(ports, *_FREE)
        if port_id is not None:
            self._own.answered.pop(port_id, None)  # until it is known what it has
            given = {"fixed_ips": [{"ip_address": f"10.0.0.{self._rng.randint(2, 9)}"}]}
            reply = await self._ask("PUT", f"ports/{port_id}", {"port": given})
            self._note(reply.body["port"] if reply.is_ok else None)

    def _note(self, port: dict[str, Any] | None) -> None:
        if port is not None:
            known = frozenset((one["subnet_id"], one["ip_address"]) for one in port["fixed_ips"])
            self._own.answered[port["id"]] = known

    # -- groups -------------------------------------------------------------------------------------------------------
    async def _make_group(self) -> None:
        if len(self._ids(security_groups)) < GROUPS_MOST:
            self._made += 1
            await self._make("security-groups", "security_group", {"name": f"group{self._made}"})

    async def _make_rule(self) -> None:
        group = self._any(security_groups)
        if group is not None:
            number = self._rng.randint(1, 40)
            given: dict[str, Any] = {
                "security_group_id": group,
                "direction": "ingress",
                "protocol": "tcp",
                "port_range_min": number,
                "port_range_max": number,
            }
            if self._rng.random() < 0.3:
                given["remote_group_id"] = self._any(security_groups)
            await self._make("security-group-rules", "security_group_rule", given)

    async def _change_groups(self) -> None:
        port_id, group = self._any(ports, _OF_GUESTS), self._any(security_groups)
        if port_id is not None and group is not None:
            await self._ask("PUT", f"ports/{port_id}", {"port": {"security_groups": [group]}})

    async def add_rule_in_use(self) -> tuple[str, str, GroupRule] | None:
        """To a group of a port that is on a host: the group, the rule's id and what it says. None: there is no such
        port."""
        group = self._any(security_groups, _IN_USE)
        for number in range(100, 100 + TRIES) if group is not None else ():
            given: dict[str, Any] = {"security_group_id": group, "direction": "ingress", "protocol": "udp"}
            given |= {"port_range_min": number, "port_range_max": number}
            made = await self._make("security-group-rules", "security_group_rule", given)
            if made is not None:
                assert group is not None, "it was chosen"
                return group, made["id"], GroupRule(RuleDirection.INGRESS, 4, 17, number, number)
            await asyncio.sleep(PAUSE_S)
        return None

    async def remove_rule(self, rule_id: str) -> bool:
        for _ in range(TRIES):
            if (await self._ask("DELETE", f"security-group-rules/{rule_id}")).is_ok:
                return True
            await asyncio.sleep(PAUSE_S)
        return False

    # -- routers ------------------------------------------------------------------------------------------------------
    async def _make_router(self) -> None:
        outside = self._any(networks, _EXTERNAL)
        if len(self._ids(routers)) < ROUTERS_MOST:
            self._made += 1
            given: dict[str, Any] = {"name": f"router{self._made}"}
            if outside is not None and self._rng.random() < 0.7:
                given["external_gateway_info"] = {"network_id": outside}
            await self._make("routers", "router", given)

    async def _add_interface(self) -> None:
        router, subnet = self._any(routers), self._any(subnets)
        if router is not None and subnet is not None:
            await self._ask("PUT", f"routers/{router}/add_router_interface", {"subnet_id": subnet})

    async def _remove_interface(self) -> None:
        port_id = self._any(ports, _OF_ROUTERS)
        if port_id is not None:
            router = self._world.database.look(lambda tx: tx.execute(_DEVICE_OF, {"of": port_id}).scalar_one())
            await self._ask("PUT", f"routers/{router}/remove_router_interface", {"port_id": port_id})

    async def _make_floating(self) -> None:
        outside = self._any(networks, _EXTERNAL)
        if outside is not None:
            given = {"floating_network_id": outside}
            port_id = self._any(ports, _OF_GUESTS)
            if port_id is not None and self._rng.random() < 0.5:
                given["port_id"] = port_id
            await self._make("floatingips", "floatingip", given)

    async def _lead_floating(self) -> None:
        floating, port_id = self._any(floating_ips), self._any(ports, _OF_GUESTS)
        if floating is not None:
            given = {"port_id": port_id if self._rng.random() < 0.7 else None}
            await self._ask("PUT", f"floatingips/{floating}", {"floatingip": given})

    # -- what goes ----------------------------------------------------------------------------------------------------
    async def _take_away(self) -> None:
        """Mostly what is in use, and refused."""
        path = self._rng.choice([*LIVES_APART, "routers"])
        table, where = LIVES_APART.get(path, (routers, ()))
        found = self._any(table, *where)
        if found is not None:
            await self._ask("DELETE", f"{path}/{found}")

    async def remove_all(self) -> None:
        """Once the servers are gone: nothing is in the way."""
        for _ in range(TRIES):
            left = self._left()
            if not left:
                return
            for method, path, body in left:
                await self._ask(method, path, body)
        self._world.broken(f"a user of networks could not remove {self._left()}")

    def _left(self) -> list[tuple[str, str, Any]]:
        found: list[tuple[str, str, Any]] = []
        interfaces = self._world.database.look(_interfaces)
        naming = self._ids(security_group_rules, _NAMES_ANOTHER)
        found += [("DELETE", f"security-group-rules/{each}", None) for each in naming]
        for path in ("floatingips", "ports", "security-groups"):
            table, where = LIVES_APART[path]
            found += [("DELETE", f"{path}/{each}", None) for each in self._ids(table, *where)]
        for router, port_id in interfaces:
            found.append(("PUT", f"routers/{router}/remove_router_interface", {"port_id": port_id}))
        found += [("DELETE", f"routers/{each}", None) for each in self._ids(routers)]
        return found + [("DELETE", f"networks/{each}", None) for each in self._ids(networks)]

    # -- what servers want --------------------------------------------------------------------------------------------
    def nics(self) -> Any:
        """The interfaces of a new server."""
        rng = self._rng
        if rng.random() >= ON_NETWORKS:
            return "none"
        found = []
        for _ in range(2 if rng.random() < TWO else 1):
            port_id, network_id = self._any(ports, *_FREE), self._any(networks)
            if port_id is not None and rng.random() < GIVEN:
                found.append({"port": port_id})
            elif network_id is not None:
                found.append({"uuid": network_id})
        return found or "none"


def _interfaces(tx: Tx) -> list[tuple[str, str]]:
    return [(router, port_id) for router, port_id in tx.execute(_INTERFACES)]


@cache
def _ids_of(table: Table, where: tuple[ColumnElement[bool], ...]) -> Prepared:
    """As many as there are pairs of a table and a condition above."""
    return Prepared(select(table.c.id).where(*where).order_by(table.c.created_at_us, table.c.id))
