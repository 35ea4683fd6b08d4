"""Quotas: the limits that were set, what a project holds, and the claim: it is checked in the very transaction that
writes the rows, and writers stand in one queue, so no race exceeds a limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, text

from droveway.domain import quota
from droveway.domain.faults import Forbidden, TooLarge
from droveway.domain.quota import Quotas
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import images, instances, quotas, server_groups

DEFAULT_CLASS = "class:default"
_OF_SERVERS = ("instances", "cores", "ram")
MIB = 1024 * 1024

_SET = Prepared(
    select(quotas.c.scope, quotas.c.resource, quotas.c.hard_limit).where(
        quotas.c.scope.in_((DEFAULT_CLASS, bindparam("of")))
    )
)
# Written as the index ix_instances_quota is, which holds all that is summed: the rows themselves are not read.
_HELD = Prepared(
    select(
        func.count(), func.coalesce(func.sum(instances.c.vcpus), 0), func.coalesce(func.sum(instances.c.ram_mb), 0)
    ).where(instances.c.project_id == bindparam("of"), text("NOT deleted"))
)
_GROUPS = Prepared(select(func.count()).select_from(server_groups).where(server_groups.c.project_id == bindparam("of")))
_MEMBERS = Prepared(
    select(func.count())
    .select_from(instances)
    .where(instances.c.server_group_id == bindparam("of"), instances.c.deleted.is_(False))
)
# An upload under way counts with the bytes that it has declared.
_IMAGES = Prepared(
    select(func.count(), func.coalesce(func.sum(images.c.size_bytes), 0)).where(
        images.c.project_id == bindparam("of"), images.c.status != "deleted"
    )
)


class Usage(msgspec.Struct, frozen=True):
    """What the living servers of a project hold. One in error counts too, until it is deleted."""

    instances: int
    cores: int
    ram: int


def scope_of(project_id: str) -> str:
    return f"project:{project_id}"


def defaults(tx: Tx, configured: Quotas) -> dict[str, int]:
    """The limits of a project for which nothing was set."""
    return _limits(tx, configured, DEFAULT_CLASS)


def limits(tx: Tx, project_id: str, configured: Quotas) -> dict[str, int]:
    return _limits(tx, configured, scope_of(project_id))


def _limits(tx: Tx, configured: Quotas, scope: str) -> dict[str, int]:
    found: dict[str, dict[str, int]] = {DEFAULT_CLASS: {}, scope: {}}
    for row in tx.execute(_SET, {"of": scope}):
        found[row.scope][row.resource] = row.hard_limit
    return quota.limits(configured, found[DEFAULT_CLASS], found[scope])


def usage(tx: Tx, project_id: str) -> Usage:
    return Usage(*(int(value) for value in tx.execute(_HELD, {"of": project_id}).one()))


def groups(tx: Tx, project_id: str) -> int:
    return int(tx.execute(_GROUPS, {"of": project_id}).scalar_one())


def of_images(tx: Tx, project_id: str) -> tuple[int, int]:
    """How many images a project has, and the bytes of their data."""
    count, size_bytes = tx.execute(_IMAGES, {"of": project_id}).one()
    return int(count), int(size_bytes)


def used(tx: Tx, project_id: str) -> dict[str, int]:
    """How much of each resource is used, as far as a project uses it up; the others limit one server or one group."""
    held = msgspec.structs.asdict(usage(tx, project_id))
    count, size_bytes = of_images(tx, project_id)
    mine = {
        "server_groups": groups(tx, project_id),
        "image_count_total": count,
        "image_size_total": -(-size_bytes // MIB),
    }
    return dict.fromkeys(quota.RESOURCES, 0) | held | mine


# -- claims -----------------------------------------------------------------------------------------------------------
def claim_servers(
    tx: Tx, project_id: str, most: Mapping[str, int], least_and_most: tuple[int, int], each: Mapping[str, int]
) -> int:
    """How many servers may be made now. `most`: the limits of the project; `each`: what one takes of cores and ram.
    Raises Forbidden. The caller writes that many rows in this transaction."""
    least, wanted = least_and_most
    if all(most[resource] == quota.UNLIMITED for resource in _OF_SERVERS):
        return wanted  # nothing to sum
    held = msgspec.structs.asdict(usage(tx, project_id))
    return quota.fitting(least, wanted, {"instances": 1, **each}, most, held)


def claim_growth(tx: Tx, project_id: str, most: Mapping[str, int], more: Mapping[str, int]) -> None:
    """A server is to take so much more of cores and ram. Raises Forbidden."""
    if all(most[resource] == quota.UNLIMITED for resource in more):
        return
    held = msgspec.structs.asdict(usage(tx, project_id))
    for resource, amount in more.items():
        if amount and quota.is_over(most[resource], held[resource], amount):
            raise Forbidden(
                f"Quota exceeded for {resource}: Requested {amount}, but already used {held[resource]} of "
                f"{most[resource]} {resource}"
            )


def claim_members(tx: Tx, group_id: str, most: Mapping[str, int], count: int) -> None:
    limit = most["server_group_members"]
    if limit == quota.UNLIMITED:
        return
    held = int(tx.execute(_MEMBERS, {"of": group_id}).scalar_one())
    if quota.is_over(limit, held, count):
        raise Forbidden(f"Quota exceeded, too many servers in group: it has {held}, and {limit} is the most.")


def claim_group(tx: Tx, project_id: str, configured: Quotas) -> None:
    limit = limits(tx, project_id, configured)["server_groups"]
    if quota.is_over(limit, groups(tx, project_id), 1):
        raise Forbidden(f"Quota exceeded, too many server groups: {limit} is the most that this project may have.")


def claim_image(tx: Tx, project_id: str, configured: Quotas) -> None:
    """One more image. Raises TooLarge, as Glance answers."""
    limit = limits(tx, project_id, configured)["image_count_total"]
    count, _ = of_images(tx, project_id)
    if quota.is_over(limit, count, 1):
        raise TooLarge(
            f"Resource image_count_total is over limit of {limit} due to current usage {count} and delta 1: "
            "delete an image first, or ask an administrator for a larger quota."
        )


def image_capacity(tx: Tx, project_id: str, configured: Quotas) -> int | None:
    """How many bytes of image data the project may still store; None: as many as it likes."""
    limit = limits(tx, project_id, configured)["image_size_total"]
    return None if limit == quota.UNLIMITED else max(0, limit * MIB - of_images(tx, project_id)[1])


# -- what administrators set ------------------------------------------------------------------------------------------
def set_(tx: Tx, scope: str, changes: Mapping[str, int]) -> None:
    if not changes:
        return
    forget(tx, scope, changes)
    tx.execute(
        insert(quotas),
        [{"scope": scope, "resource": resource, "hard_limit": limit} for resource, limit in sorted(changes.items())],
    )


def forget(tx: Tx, scope: str, resources: Iterable[str] | None = None) -> None:
    """Back to the defaults: of all resources, or of those."""
    query = delete(quotas).where(quotas.c.scope == scope)
    tx.execute(query if resources is None else query.where(quotas.c.resource.in_(list(resources))))
