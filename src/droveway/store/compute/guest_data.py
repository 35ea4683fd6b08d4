"""What servers tell their guests: user data and the key that each took when it was made; and the documents of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, or_, select

from droveway.domain import guest_data as documents
from droveway.domain.guest_data import Document, GuestData, GuestFacts, GuestKey
from droveway.store.compute import server_locations, server_ports
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.tables import ports
from droveway.store.rows import GuestDataRow, InstanceRow
from droveway.store.schema import guest_data, instances
from droveway.store.schema import server_ports as server_ports_table

SENT_AT_ONCE_BYTES = 1024 * 1024  # a quarter of what a message holds: user data is a third longer on the wire
GUEST_BYTES = 4096  # of one guest, beside its user data and metadata
_THERE = Prepared(
    select(server_ports_table.c.instance_id)
    .join(ports, ports.c.id == server_ports_table.c.port_id)
    .where(
        in_list(server_ports_table.c.instance_id, "ids"),
        or_(ports.c.host == bindparam("of"), ports.c.moving_to == bindparam("of")),
    )
    .distinct()
)
_INSTANCES = Prepared(
    select(instances).where(in_list(instances.c.id, "ids"), instances.c.deleted.is_(False)).order_by(instances.c.id)
)
_USER_DATA = Prepared(
    select(guest_data.c.instance_id, guest_data.c.user_data).where(
        in_list(guest_data.c.instance_id, "ids"), guest_data.c.user_data.is_not(None)
    )
)
_GET = Prepared(select(guest_data).where(guest_data.c.instance_id == bindparam("of")))
_FORGET = Prepared(delete(guest_data).where(guest_data.c.instance_id == bindparam("of")))


def keep(
    tx: Tx, instance_id: str, user_data: str | None, key: GuestKey | None, admin_password: str | None = None
) -> None:
    """With the instance's row. `user_data`: base64, as it was given. `admin_password`: of one with a config drive."""
    if user_data is None and key is None and admin_password is None:
        return
    values = {"instance_id": instance_id, "user_data": user_data, "admin_password": admin_password}
    of_key = (
        {"key_type": None, "public_key": None} if key is None else {"key_type": key.type, "public_key": key.public_key}
    )
    tx.execute(insert(guest_data), values | of_key)


def forget(tx: Tx, instance_id: str) -> None:
    """Of a server that is deleted: it may be secret, and nobody is told it any longer."""
    tx.execute(_FORGET, {"of": instance_id})


def user_data_of(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """Of those servers that have any."""
    return {instance_id: user_data for instance_id, user_data in tx.execute(_USER_DATA, {"ids": ids})}  # noqa: C416


def facts(tx: Tx, instance: InstanceRow) -> GuestFacts:
    """What its guest may know."""
    return msgspec.structs.replace(
        _own(tx, instance),
        nics=server_ports.told_of(tx, instance["id"]),
        group_names=tuple(server_ports.group_names(tx, [instance["id"]]).get(instance["id"], ())),
    )


def data_at(tx: Tx, host: str, ids: Iterable[str]) -> tuple[GuestData, ...]:
    """For that host, of these guests those that have a port there, as many as one message holds: at least one."""
    found: list[GuestData] = []
    size = 0
    wanted = tx.execute(_THERE, {"ids": sorted(set(ids)), "of": host}).scalars()
    for instance in results.every(InstanceRow, tx.execute(_INSTANCES, {"ids": list(wanted)})):
        data = _own(tx, instance)
        size += GUEST_BYTES + len(data.user_data or b"") + 2 * sum(len(v) for v in instance["metadata"].values())
        if found and size > SENT_AT_ONCE_BYTES:
            break
        names = (instance["number"], instance["name"], instance["hostname"], instance["metadata"], instance["key_name"])
        found.append(GuestData(documents.digest(*names, instance["guest_password"]), data))
    return tuple(found)


def _own(tx: Tx, instance: InstanceRow) -> GuestFacts:
    """But for its ports."""
    kept = results.first(GuestDataRow, tx.execute(_GET, {"of": instance["id"]}))
    host = instance["host"]
    place = server_locations.of(tx, [host]).get(host) if host is not None else None
    key = None
    if kept is not None and kept["public_key"] is not None:
        key = GuestKey(instance["key_name"] or "", kept["key_type"] or "", kept["public_key"].strip())
    user_data = None if kept is None else kept["user_data"]
    return GuestFacts(
        instance_id=instance["id"],
        number=instance["number"],
        name=instance["name"],
        hostname=instance["hostname"],
        project_id=instance["project_id"],
        zone=place.zone if place is not None else instance["zone"] or "",
        flavor_name=instance["flavor"]["name"],
        reservation_id=instance["reservation_id"],
        launch_index=instance["launch_index"],
        metadata=instance["metadata"],
        password=instance["guest_password"] or "",
        key=key,
        user_data=None if user_data is None else documents.decoded(user_data),
    )


def change(tx: Tx, instance_id: str, given: Mapping[str, Any], key: GuestKey | None) -> None:
    """Of a server that is rebuilt: what is `given` of "user_data", "key" and "admin_password" replaces what it had."""
    kept = results.first(GuestDataRow, tx.execute(_GET, {"of": instance_id}))
    user_data = given["user_data"] if "user_data" in given else None if kept is None else kept["user_data"]
    if "key" not in given and kept is not None and kept["public_key"] is not None:
        key = GuestKey("", kept["key_type"] or "", kept["public_key"])
    forget(tx, instance_id)
    keep(tx, instance_id, user_data, key, given.get("admin_password", kept and kept["admin_password"]))


def for_drive(tx: Tx, instance: InstanceRow) -> tuple[Document, ...]:
    """What its config drive holds; nothing where it has none."""
    if not instance["config_drive"]:
        return ()
    kept = results.first(GuestDataRow, tx.execute(_GET, {"of": instance["id"]}))
    password = None if kept is None else kept["admin_password"]
    return documents.documents(msgspec.structs.replace(facts(tx, instance), admin_password=password))
