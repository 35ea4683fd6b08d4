"""What is made for a project that names no network: one network with a subnet, and a router outside where there is one
way out. Made once; what of it is there already stays as it is."""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import AutoAllocationFailure, DefaultExternalNetworkExists
from droveway.domain.network.subnets import Asked, checked
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import addressing, networks, routers, subnet_pools, subnets
from droveway.store.network.networks import NewNetwork
from droveway.store.network.routers import Gateway, NewRouter
from droveway.store.network.tables import auto_topologies
from droveway.store.network.tables import networks as network_table
from droveway.store.network.tables import routers as router_table
from droveway.store.network.tables import subnets as subnet_table

NETWORK_NAME, SUBNET_NAME, ROUTER_NAME = "auto_allocated_network", "auto_allocated_subnet", "auto_allocated_router"
CIDR = "10.0.0.0/24"
n, t = network_table.c, auto_topologies.c
_OUTSIDE = Prepared(
    select(n.id, n.is_default)
    .where(
        n.external,
        n.admin_state_up,
        select(subnet_table.c.id).where(subnet_table.c.network_id == n.id).exists(),
    )
    .order_by(n.is_default.desc(), n.created_at_us, n.id)
    .limit(2)
)
_DEFAULT = Prepared(select(n.id).where(n.is_default, n.id != bindparam("but")).limit(1))
_OF = Prepared(
    select(n.id.label("network_id"), router_table.c.id.label("router_id"))
    .join_from(auto_topologies, network_table, n.id == t.network_id)
    .outerjoin(router_table, router_table.c.id == t.router_id)
    .where(t.project_id == bindparam("of"))
)
_FORGET = Prepared(delete(auto_topologies).where(t.project_id == bindparam("of")))


class Topology(msgspec.Struct, frozen=True):
    network_id: str
    router_id: str | None  # None: there was no way out when it was made


def outside(tx: Tx) -> str | None:
    """The external network with a subnet to which routers lead of themselves: the default one, or the only one. One
    that is external by a policy for one project has to be named: any project may make such a policy for any other."""
    found = list(tx.execute(_OUTSIDE))
    return found[0].id if found and (len(found) == 1 or found[0].is_default) else None


def check_one_default(tx: Tx, network_id: str) -> None:
    """Raises DefaultExternalNetworkExists when another network is it."""
    other = tx.execute(_DEFAULT, {"but": network_id}).scalar()
    if other is not None:
        raise DefaultExternalNetworkExists(
            f"A default external network already exists: {other}. Take is_default from it first."
        )


def of(tx: Tx, project_id: str) -> Topology | None:
    """What is there of it still: its owner may have deleted the network, or the router alone."""
    row = tx.execute(_OF, {"of": project_id}).first()
    return None if row is None else Topology(row.network_id, row.router_id)


def check(tx: Tx) -> None:
    """Raises AutoAllocationFailure when what would be made led nowhere."""
    if outside(tx) is None:
        raise AutoAllocationFailure(
            "Deployment error: No default router:external network. An administrator makes one network with "
            "--external and a subnet, or says of one of several that it is the --default."
        )


def make(tx: Tx, project_id: str, mtu_bytes: int, quotas: NetworkQuotas) -> Topology:
    """Whatever of it is missing. Raises what is in the way."""
    there = of(tx, project_id)
    if there is None:
        tx.execute(_FORGET, {"of": project_id})
        network = networks.create(tx, NewNetwork(project_id, mtu_bytes, NETWORK_NAME), quotas)
        pool = subnet_pools.default_of(tx, 4, project_id)
        cidr = CIDR if pool is None else subnet_pools.range_of(tx, pool, project_id, None, None)
        pool_id = None if pool is None else pool["id"]
        subnets.create(tx, network, checked(Asked(4, cidr)), quotas, name=SUBNET_NAME, pool_id=pool_id)
        tx.execute(insert(auto_topologies).values(project_id=project_id, network_id=network["id"], router_id=None))
        there = Topology(network["id"], None)
    external_id = outside(tx)
    inside = addressing.subnets_of(tx, there.network_id)
    if there.router_id is not None or external_id is None or not inside:
        return there
    router = routers.create(tx, NewRouter(project_id, ROUTER_NAME, gateway=Gateway(external_id)), quotas, None)
    for subnet in inside:
        routers.add_interface(tx, router["id"], {"subnet_id": subnet["id"]}, quotas, None)
    tx.execute(update(auto_topologies).where(t.project_id == project_id).values(router_id=router["id"]))
    return Topology(there.network_id, router["id"])


def remove(tx: Tx, project_id: str) -> None:
    """Raises what of it is in use. Nothing to do when it was never made."""
    there = of(tx, project_id)
    if there is not None and there.router_id is not None:
        for leg in [leg for leg in routers.legs(tx, there.router_id) if not leg.is_gateway]:
            routers.remove_interface(tx, there.router_id, {"port_id": leg.port_id}, None)
        routers.remove(tx, there.router_id)
    if there is not None:
        networks.remove(tx, there.network_id)
    tx.execute(_FORGET, {"of": project_id})
