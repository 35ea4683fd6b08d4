"""Where routers are, and which hosts can carry them: read, decided (domain/network/placing.py) and written in one
transaction, so that two controls that do it at once agree."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, func, select, update

from droveway.domain.network import placing
from droveway.domain.network.placing import Agent, Placed
from droveway.domain.service_kinds import NETWORK
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.changes import changed
from droveway.store.network.tables import host_networks, networks, routers
from droveway.store.schema import services

_ROUTERS = Prepared(
    select(routers.c.id, routers.c.host, func.coalesce(networks.c.physical_network, "").label("needs")).outerjoin(
        networks, networks.c.id == routers.c.external_network_id
    )
)
_AGENTS = Prepared(
    select(services.c.host, services.c.is_up, services.c.disabled, services.c.state, host_networks.c.physical_networks)
    .outerjoin(host_networks, host_networks.c.host == services.c.host)
    .where(services.c.binary == NETWORK, services.c.forced_down.is_(False))
)
_MOVE = Prepared(
    update(routers)
    .where(routers.c.id == bindparam("of"), routers.c.host == bindparam("seen"))
    .values(host=bindparam("new_host"))
)


def look(tx: Tx) -> tuple[list[Placed], list[Agent]]:
    """The routers, and where there are any the network agents that no operator has forced down."""
    routers_known = [Placed(row.id, row.host, row.needs) for row in tx.execute(_ROUTERS)]
    if not routers_known:
        return [], []
    return routers_known, [
        Agent(row.host, row.is_up, row.disabled, row.state, row.physical_networks or ()) for row in tx.execute(_AGENTS)
    ]


def settle(tx: Tx, awaited: Collection[str] = ()) -> list[tuple[str, str, str]]:
    """Each router that has got another place: its id, the host before (empty: none) and the one now. `awaited`: hosts
    that keep theirs although their agent has ended."""
    routers_known, agents = look(tx)
    found = []
    for router, host in placing.moves(routers_known, placing.carriers(agents, awaited)):
        if tx.execute(_MOVE, {"of": router.router_id, "seen": router.host, "new_host": host}).rowcount:
            found.append((router.router_id, router.host, host))
    for router_id, _, _ in found:
        changed(tx, routers, router_id)
    return found
