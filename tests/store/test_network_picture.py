"""What control keeps of networks is what a whole read says, whatever was changed: each plan is compared with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import select

from droveway.domain.network.picture import Picture
from droveway.domain.network.rules import RuleSpec
from droveway.domain.network_change import PlanChange, applied, between
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.network import (
    bindings,
    changes,
    floating,
    groups,
    in_force,
    networks,
    news,
    planning,
    ports,
    routers,
    subnets,
)
from droveway.store.network.floating import NewFloatingIp
from droveway.store.network.routers import Gateway, NewRouter
from droveway.store.network.tables import floating_ips, port_groups, security_group_rules
from droveway.store.network.tables import networks as network_table
from droveway.store.network.tables import routers as router_table
from tests.control.hosts import memory_store
from tests.store.test_network_store import FREE, make_network, make_port

HOSTS = ("h1", "h2", "h3")
PORTS_MAX = 10_000


def look(tx: Tx, picture: Picture) -> Picture:
    found = news.look(tx, picture.last, PORTS_MAX)
    assert found is not None
    if found.is_whole:
        picture = Picture()
    picture.take(found)
    return picture


def compare(tx: Tx, picture: Picture) -> None:
    tunnels = in_force.tunnel_addresses(tx)
    for host in HOSTS:
        assert picture.plan_of(host) == planning.of_host(tx, host, tunnels), host


class Cloud:
    """Changes by chance, each through the door that the API and the sagas use."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.numbers = 0

    def one_of(self, tx: Tx, column: Any, *where: Any) -> Any:
        found = sorted(tx.execute(select(column).where(*where)).scalars())
        return self.rng.choice(found) if found else None

    def host(self) -> str:
        return self.rng.choice(HOSTS)

    def inside(self, tx: Tx) -> Any:
        return self.one_of(tx, network_table.c.id, network_table.c.external.is_(False))

    def guest(self, tx: Tx) -> Any:
        return self.one_of(tx, ports.c.id, ports.c.device_owner == "compute:nova")

    def group(self, tx: Tx) -> Any:
        return self.one_of(tx, groups.g.id)

    def begin(self, tx: Tx) -> None:
        for number, host in enumerate(HOSTS):
            in_force.record(tx, host, -1, (), f"192.0.2.{number + 1}", ("physnet1",))
        make_network(tx, "203.0.113.0/24", external=True, physical_network="physnet1")
        for number in range(2):
            make_network(tx, f"10.{number}.0.0/24")
            groups.create(tx, "red", f"g{number}", "", FREE)

    def change(self, tx: Tx) -> None:
        kinds: tuple[Callable[[Tx], None], ...] = (
            self.make_port,
            self.make_port,
            self.bind,
            self.bind,
            self.move,
            self.change_port,
            self.remove_port,
            self.rule,
            self.regroup,
            self.router,
            self.place,
            self.float_,
            self.network,
            self.tunnel,
        )
        self.rng.choice(kinds)(tx)

    def make_port(self, tx: Tx) -> None:
        group = self.group(tx)
        self.numbers += 1
        pairs = (("10.9.0.0/16", ""),) if self.rng.random() < 0.2 else ()
        host = self.host() if self.rng.random() < 0.5 else ""
        owner = {"device_id": f"vm-{self.numbers}", "device_owner": "compute:nova"}
        make_port(tx, self.inside(tx), groups=(group,) if group else (), pairs=pairs, host=host, **owner)

    def bind(self, tx: Tx) -> None:
        if port := self.guest(tx):
            there = ports.row_of(tx, port)["host"]
            if not there:
                bindings.bind(tx, port, self.host())
            elif self.rng.random() < 0.3:
                bindings.unbind(tx, port, there)
            else:
                bindings.set_status(tx, port, there, "ACTIVE")

    def move(self, tx: Tx) -> None:
        if port := self.guest(tx):
            row = ports.row_of(tx, port)
            if row["moving_to"]:
                (bindings.arrived if self.rng.random() < 0.5 else bindings.stayed)(tx, port, row["moving_to"])
                bindings.stayed(tx, port, row["host"])
            elif row["host"]:
                bindings.move(tx, port, row["host"], self.rng.choice([one for one in HOSTS if one != row["host"]]))

    def change_port(self, tx: Tx) -> None:
        if port := self.guest(tx):
            row = ports.row_of(tx, port)
            changed = {"name": "n", "admin_state_up": self.rng.random() < 0.5, "port_security": self.rng.random() < 0.7}
            ports.update(tx, row, changed, group_ids=[self.group(tx)])

    def remove_port(self, tx: Tx) -> None:
        if port := self.guest(tx):
            ports.remove(tx, port)

    def rule(self, tx: Tx) -> None:
        rule = self.one_of(tx, security_group_rules.c.id)
        if rule is not None and self.rng.random() < 0.3:
            groups.remove_rule(tx, rule, None)
        elif group := self.group(tx):
            self.numbers += 1
            remote = self.group(tx) if self.rng.random() < 0.5 else None
            spec = RuleSpec("ingress", "IPv4", "tcp", self.numbers, self.numbers, None, remote)
            groups.add_rule(tx, group, spec, "red", FREE)

    def regroup(self, tx: Tx) -> None:
        used = select(port_groups.c.group_id)
        unused = self.one_of(tx, groups.g.id, groups.g.id.not_in(used), groups.g.name != "default")
        if unused is not None and self.rng.random() < 0.5:
            groups.remove(tx, unused)
        else:
            groups.create(tx, "red", f"group {self.numbers}", "", FREE)

    def router(self, tx: Tx) -> None:
        found = self.one_of(tx, routers.c.id)
        out = self.one_of(tx, network_table.c.id, network_table.c.external.is_(True))
        if found is None or self.rng.random() < 0.2:
            found = routers.create(tx, NewRouter("red", gateway=Gateway(out)), FREE, "red")["id"]
        network = networks.get(tx, self.inside(tx))
        if not network["subnets"]:
            return
        leg = next((one for one in routers.legs(tx, found) if one.subnet_id in network["subnets"]), None)
        subnet = {"subnet_id": network["subnets"][0]}
        if leg is None:
            taken = tx.execute(select(ports.c.id).where(ports.c.device_owner == "network:router_interface"))
            if not [1 for one in taken.scalars() if ports.row_of(tx, one)["network_id"] == network["id"]]:
                routers.add_interface(tx, found, subnet, FREE, "red")
        elif not tx.execute(select(floating_ips.c.id).where(floating_ips.c.router_id == found)).first():
            routers.remove_interface(tx, found, subnet, "red")

    def place(self, tx: Tx) -> None:
        found = self.one_of(tx, routers.c.id)
        if found is not None:
            host, is_up = self.host(), self.rng.random() < 0.8
            changes.touch(tx, router_table, found, host=host, admin_state_up=is_up)

    def float_(self, tx: Tx) -> None:
        found = self.one_of(tx, floating_ips.c.id)
        if found is not None and self.rng.random() < 0.4:
            floating.remove(tx, found, None)
            return
        out = self.one_of(tx, network_table.c.id, network_table.c.external.is_(True))
        made = floating.create(tx, NewFloatingIp("red", out), FREE, "red")
        leg = next((one for one in tx.execute(select(routers.c.id)).scalars() for _ in routers.legs(tx, one)), None)
        within = [one.subnet_id for one in routers.legs(tx, leg)] if leg else []
        for port in ports.whole(tx, [ports.row_of(tx, one) for one in [self.guest(tx)] if one]):
            taken = tx.execute(select(floating_ips.c.id).where(floating_ips.c.port_id == port["id"])).first()
            if port["addresses"][0][0] in within and taken is None:
                floating.associate(tx, made, port["id"], None, None)

    def network(self, tx: Tx) -> None:
        self.numbers += 1
        empty = make_network(tx, f"10.{self.numbers % 200 + 20}.0.0/24")
        if self.rng.random() < 0.5:
            networks.remove(tx, empty)
        networks.update(tx, self.inside(tx), {"admin_state_up": self.rng.random() < 0.8})
        subnet = self.one_of(tx, subnets.c.id)
        if subnet is not None:
            row = subnets.get(tx, subnet)
            parent = networks.row_of(tx, row["network_id"])
            subnets.update(tx, subnet, {"enable_dhcp": self.rng.random() < 0.7, "dns": ["9.9.9.9"]}, parent)

    def tunnel(self, tx: Tx) -> None:
        if self.rng.random() < 0.3:
            host, is_there = self.host(), self.rng.random() < 0.7
            in_force.record(tx, host, -1, (), f"192.0.2.{self.rng.randint(1, 200)}" if is_there else "", ())


async def each(seed: int, count: int, then: Callable[[Tx], None]) -> MemoryStore:
    store, cloud = memory_store(), Cloud(seed)
    await store.run(cloud.begin)
    for _ in range(count):
        await store.run(cloud.change)
        await store.run(then)
    return store


async def test_what_is_kept_is_what_a_whole_read_says() -> None:
    picture = Picture()
    picture.last = -1
    wholes = 0
    sizes: list[int] = []

    def then(tx: Tx) -> None:
        nonlocal picture, wholes
        before = picture
        was = {host: picture.plan_of(host) for host in HOSTS} if picture.last >= 0 else {}
        picture = look(tx, picture)
        wholes += picture is not before
        for host, old in was.items():  # and what a host is told of it leads there
            change, new = between(old, picture.plan_of(host)), picture.plan_of(host)
            assert applied(old, msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=PlanChange)) == new
            sizes.append(change.size)
        compare(tx, picture)

    store = await each(1, 120, then)
    assert wholes == 1, "each change says what it changes"
    assert sum(sizes) < 5 * len(sizes), "what has not changed is not told"
    await store.close()
