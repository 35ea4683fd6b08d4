"""Volumes: lists, one of them, changes of its name and its deletion; what else may be done to one is an action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, given_in, takes
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.http.validate import as_flag
from droveway.api.volume import fields, listing
from droveway.api.volume.fields import VolumeView
from droveway.api.volume.kinds import METADATA, TEXT
from droveway.api.volume.listing import Filter, Items, Listed, Times
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.lifecycle import Verb
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import attachments, making, types, volumes
from droveway.store.volume import listing as rows_of
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import VolumeRow
from droveway.store.volume.tables import volumes as table

LISTED = Listed(
    filters={
        "id": Filter("id", admin_only=True),
        "name": Filter("name"),
        "display_name": Filter("name"),
        "description": Filter("description", admin_only=True),
        "display_description": Filter("description", admin_only=True),
        "status": Filter("status"),
        "size": Filter("size_gb", listing.as_number),
        "availability_zone": Filter("zone"),
        "bootable": Filter("bootable", listing.as_yes),
        "migration_status": Filter("migration_status"),
        "metadata": Items("metadata"),
        "glance_metadata": Items("image_metadata", since=4),
        "created_at": Times("created_at_us", since=60),
        "updated_at": Times("updated_at_us", since=60),
        "user_id": Filter("user_id", admin_only=True),
        "host": Filter("host", lambda _, value: value.partition("#")[0], admin_only=True),
        "volume_type_id": Filter("volume_type_id", admin_only=True),
        "snapshot_id": Filter("snapshot_id", admin_only=True),
        "source_volid": Filter("source_volume_id", admin_only=True),
    },
    sorts={
        "id": "id",
        "name": "name",
        "display_name": "name",
        "status": "status",
        "size": "size_gb",
        "availability_zone": "zone",
        "created_at": "created_at_us",
        "updated_at": "updated_at_us",
        "bootable": "bootable",
        "host": "host",
        "project_id": "project_id",
        "user_id": "user_id",
        "volume_type_id": "volume_type_id",
        "description": "description",
    },
    ignored={
        "group_id": lambda value: False,
        "consumes_quota": lambda value: as_flag("consumes_quota", value),
        "use_quota": lambda value: as_flag("use_quota", value),
        "encryption_key_id": lambda value: False,
        "multiattach": lambda value: not as_flag("multiattach", value),
    },
)


def _query(api: Api, request: Request) -> listing.Query:
    return listing.read(api, request, LISTED)


async def names(api: Api, request: Request) -> Response:
    query = _query(api, request)

    def read(tx: Tx) -> bytes:
        found = [] if query.is_empty else rows_of.names(tx, table, query.wanted)
        items = encode_each(fields.names_of(found, api.settings.base_url, "volumes"))
        return encode(
            listing.body(api, request, "volumes", items, found[-1][0] if found else None, query, _count(tx, query))
        )

    return Response(200, await api.store.read(read))


def _count(tx: Tx, query: listing.Query) -> int | None:
    if not query.with_count:
        return None
    return 0 if query.is_empty else rows_of.count(tx, table, query.wanted)


async def detail(api: Api, request: Request) -> Response:
    query = _query(api, request)
    is_admin = request.caller.is_admin

    def read(tx: Tx) -> bytes:
        rows = [] if query.is_empty else rows_of.find(tx, VolumeRow, table, query.wanted)
        render, view = fields.VOLUME.renderer(request.version, is_admin=is_admin), view_of(tx, api, request, rows)
        items = encode_each(render(row, view) for row in rows)
        last = rows[-1]["id"] if rows else None
        return encode(listing.body(api, request, "volumes", items, last, query, _count(tx, query)))

    return Response(200, await api.store.read(read))


async def summary(api: Api, request: Request) -> Response:
    """How many there are and how large they are together; since 3.36 with what their metadata is made of."""
    query = _query(api, request)

    def read(tx: Tx) -> dict[str, Any]:
        number, size_gb = (0, 0) if query.is_empty else rows_of.totals(tx, table, query.wanted)
        found: dict[str, Any] = {"total_count": number, "total_size": size_gb}
        if request.version >= 36:
            found["metadata"] = rows_of.distinct_items(rows_of.objects(tx, table, "metadata", query.wanted))
        return found

    return Response(200, {"volume-summary": await api.store.read(read)})


# -- one --------------------------------------------------------------------------------------------------------------
def view_of(tx: Tx, api: Api, request: Request, rows: Sequence[VolumeRow]) -> VolumeView:
    """What rendering them needs beside their rows."""
    held = attachments.of_volumes(tx, [row["id"] for row in rows]) if rows else {}
    ids = {row["host"]: row["uuid"] for row in services.list_all(tx, None, VOLUME)} if request.version >= 48 else {}
    return VolumeView(api.settings.base_url, types.names(tx), held, ids, shows_hosts(request))


def shows_hosts(request: Request) -> bool:
    return request.caller.is_admin or "service" in request.caller.role_names


def shown(
    tx: Tx, api: Api, request: Request, row: VolumeRow, of: FieldTable[VolumeRow] = fields.VOLUME
) -> dict[str, Any]:
    render = of.renderer(request.version, is_admin=request.caller.is_admin)
    return {"volume": render(row, view_of(tx, api, request, [row]))}


def own(tx: Tx, request: Request) -> VolumeRow:
    """The volume that the path names. Raises NotFound."""
    return volumes.get(tx, request.params["volume_id"], request.scope)


async def show(api: Api, request: Request) -> Response:
    return Response(200, await api.store.read(lambda tx: shown(tx, api, request, own(tx, request))))


async def show_encryption(api: Api, request: Request) -> Response:
    """None is encrypted."""
    await api.store.read(own, request)
    return Response(200, {"encryption_key_id": None})


class VolumeChanges(Body, frozen=True):
    name: Annotated[str | UnsetType | None, TEXT] = UNSET
    description: Annotated[str | UnsetType | None, TEXT] = UNSET
    display_name: Annotated[str | UnsetType | None, TEXT] = UNSET
    display_description: Annotated[str | UnsetType | None, TEXT] = UNSET
    metadata: Annotated[dict[str, str] | UnsetType, METADATA] = UNSET


@takes(VolumeChanges, "volume")
async def update(api: Api, request: Request, given: VolumeChanges) -> Response:
    changes = given_in(given)
    if not changes and request.version >= 53:
        raise BadRequest(
            "Invalid input for volume: one of name, description, display_name, display_description or metadata is "
            "required."
        )
    for old, new in (("display_name", "name"), ("display_description", "description")):
        if old in changes:
            changes.setdefault(new, changes.pop(old))
            changes.pop(old, None)

    def write(tx: Tx) -> dict[str, Any]:
        row = own(tx, request)
        if "metadata" in changes:
            making.must_be_allowed_now(Verb.CHANGE_METADATA, row)
        if changes:
            volumes.set_(tx, row["id"], **changes)
        return shown(tx, api, request, own(tx, request), fields.VOLUME_MADE)

    return Response(200, await api.store.run(write))


async def delete(api: Api, request: Request) -> Response:
    """`cascade`: with its snapshots. `force` (3.23): whatever its status, unless a guest holds it."""
    given = dict(request.query)
    cascade = as_flag("cascade", given.get("cascade", "false") or "false")
    force = request.version >= 23 and as_flag("force", given.get("force", "false") or "false")
    if force and not request.caller.is_admin:
        raise Forbidden("Policy doesn't allow volume:force_delete to be performed: it needs the role admin.")

    def write(tx: Tx) -> None:
        asked = Asked(request.id, request.caller.user_id)
        making.delete(tx, own(tx, request), asked, cascade=cascade, force=force)

    await api.store.run(write)
    return Response(202)
