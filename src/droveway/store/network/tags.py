"""Tags of every resource of networks that has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Table

from droveway.store.engine.transaction import Tx
from droveway.store.network import floating, groups, networks, ports, routers, subnet_pools, subnets, tables
from droveway.store.network.changes import touch


class Tagged(NamedTuple):
    """`get` gives the row, if that project sees it."""

    get: Callable[[Tx, str, str | None], Mapping[str, Any]]
    table: Table


TAGGED = {
    "networks": Tagged(networks.row_of, tables.networks),
    "subnets": Tagged(subnets.get, tables.subnets),
    "subnetpools": Tagged(subnet_pools.get, tables.subnet_pools),
    "ports": Tagged(ports.row_of, tables.ports),
    "security-groups": Tagged(groups.row_of, tables.security_groups),
    "routers": Tagged(routers.row_of, tables.routers),
    "floatingips": Tagged(floating.get, tables.floating_ips),
}


def row_of(tx: Tx, resource: str, of: str, scope: str | None) -> Mapping[str, Any]:
    return TAGGED[resource].get(tx, of, scope)


def set_(tx: Tx, resource: str, of: str, tags: list[str]) -> None:
    touch(tx, TAGGED[resource].table, of, tags=tags)
