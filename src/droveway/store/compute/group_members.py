"""Where the members of a server group are, for the placement of the next one."""

from __future__ import annotations

from sqlalchemy import bindparam, func, select, union_all

from droveway.domain.placement import GroupPolicy, GroupRequest
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances, migrations, server_groups

_GET = Prepared(select(server_groups).where(server_groups.c.id == bindparam("of")))
_OF_GROUP = (
    instances.c.server_group_id == bindparam("of"),
    instances.c.deleted.is_(False),
    instances.c.id != bindparam("but"),
)
_PLACES = union_all(
    select(instances.c.host.label("host")).where(*_OF_GROUP, instances.c.host.is_not(None)),
    select(migrations.c.destination)
    .join(instances, instances.c.id == migrations.c.instance_id)
    .where(*_OF_GROUP, migrations.c.holds_claim.is_(True)),
).subquery("places")
_COUNTED = Prepared(select(_PLACES.c.host, func.count()).group_by(_PLACES.c.host))
_MOVING = Prepared(
    select(instances.c.host, migrations.c.destination)
    .join_from(migrations, instances)
    .where(*_OF_GROUP, instances.c.host.is_not(None), migrations.c.holds_claim.is_(True))
)


def ask(tx: Tx, group_id: str, *, but: str) -> GroupRequest | None:
    """The rule of that group and the places of its members, those that are about to arrive included; the instance
    `but` is left out. None when the group is no more: its servers outlive it without a rule."""
    group = tx.execute(_GET, {"of": group_id}).first()
    if group is None:
        return None
    places = {host: count for host, count in tx.execute(_COUNTED, {"of": group_id, "but": but})}  # noqa: C416
    policy, moving = GroupPolicy(group.policy), set[str]()
    if policy is GroupPolicy.AFFINITY:
        moving.update(*tx.execute(_MOVING, {"of": group_id, "but": but}))
    return GroupRequest(group_id, policy, places, group.max_server_per_host or 1, tuple(sorted(moving)))
