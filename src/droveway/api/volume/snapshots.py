"""Snapshots: lists, one, its creation, changes of its name, its deletion and what administrators do to it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, given_in, takes
from droveway.api.http.kinds import FLAG, one_of, or_null, text
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.volume import fields, listing
from droveway.api.volume.fields import VolumeView
from droveway.api.volume.kinds import METADATA_OR_NULL, NOTHING, TEXT, UUID_OR_NULL
from droveway.api.volume.listing import Filter, Items, Listed
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.policy import Need
from droveway.domain.volume.lifecycle import busy
from droveway.domain.volume.model import SnapshotStatus, of_snapshot
from droveway.store.engine.transaction import Tx
from droveway.store.volume import listing as rows_of
from droveway.store.volume import making, snapshots, types, volumes
from droveway.store.volume.making import Asked, NewSnapshot
from droveway.store.volume.rows import SnapshotRow
from droveway.store.volume.tables import snapshots as table
from droveway.store.work import sagas

IN_USE_SINCE = 66
LISTED = Listed(
    filters={
        "id": Filter("id", admin_only=True),
        "name": Filter("name"),
        "display_name": Filter("name"),
        "status": Filter("status"),
        "volume_id": Filter("volume_id"),
        "size": Filter("size_gb", listing.as_number, admin_only=True),
        "volume_size": Filter("size_gb", listing.as_number, admin_only=True),
        "metadata": Items("metadata", since=22),
        "user_id": Filter("user_id", admin_only=True, since=41),
    },
    sorts={
        "id": "id",
        "name": "name",
        "display_name": "name",
        "status": "status",
        "volume_id": "volume_id",
        "created_at": "created_at_us",
        "updated_at": "updated_at_us",
        "size": "size_gb",
        "volume_size": "size_gb",
        "project_id": "project_id",
        "description": "description",
    },
    ignored={"availability_zone": lambda value: True, "consumes_quota": lambda value: value.lower() in ("true", "1")},
)


async def summaries(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.SNAPSHOT_SUMMARY)


async def detail(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.SNAPSHOT)


async def _listing(api: Api, request: Request, of: Any) -> Response:
    query = listing.read(api, request, LISTED)

    def read(tx: Tx) -> bytes:
        rows = [] if query.is_empty else rows_of.find(tx, SnapshotRow, table, query.wanted)
        render, view = of.renderer(request.version, is_admin=request.caller.is_admin), VolumeView(api.settings.base_url)
        number = rows_of.count(tx, table, query.wanted) if query.with_count else None
        items = encode_each(render(row, view) for row in rows)
        return encode(listing.body(api, request, "snapshots", items, rows[-1]["id"] if rows else None, query, number))

    return Response(200, await api.store.read(read))


def own(tx: Tx, request: Request) -> SnapshotRow:
    return snapshots.get(tx, request.params["snapshot_id"], request.scope)


def _shown(request: Request, row: SnapshotRow, of: FieldTable[SnapshotRow] = fields.SNAPSHOT_MADE) -> dict[str, Any]:
    render = of.renderer(request.version, is_admin=request.caller.is_admin)
    return {"snapshot": render(row, None)}


async def show(api: Api, request: Request) -> Response:
    return Response(200, _shown(request, await api.store.read(own, request), fields.SNAPSHOT))


class NewSnapshotBody(Body, frozen=True):
    """`force`: false refuses it of a volume in use, up to 3.65. What says nothing is taken for a wish, at any version:
    the `openstack` command asks at 3.65 and leaves out the force that it was given."""

    volume_id: Annotated[str | None, UUID_OR_NULL]
    name: Annotated[str | None, TEXT] = None
    display_name: Annotated[str | None, TEXT] = None
    description: Annotated[str | None, TEXT] = None
    force: Annotated[bool | UnsetType, FLAG] = UNSET
    metadata: Annotated[dict[str, str] | None, METADATA_OR_NULL] = None


@takes(NewSnapshotBody, "snapshot")
async def create(api: Api, request: Request, given: NewSnapshotBody) -> Response:
    if given.volume_id is None:
        raise NotFound("Volume None could not be found.")
    if request.version >= IN_USE_SINCE and given.force is False:
        raise BadRequest(
            f"Since microversion 3.{IN_USE_SINCE}, the 'force' option is invalid for this request, unless it is true: "
            "a volume in use is snapshotted without it."
        )
    volume_id = given.volume_id
    new = NewSnapshot(
        user_id=request.caller.user_id,
        name=given.name if given.name is not None else given.display_name,
        description=given.description,
        metadata=given.metadata or {},
        force=given.force is not False,
        request_id=request.id,
    )

    def write(tx: Tx) -> SnapshotRow:
        volume = volumes.get(tx, volume_id, request.scope)
        name = types.names(tx).get(volume["volume_type_id"] or "", "")
        return making.create_snapshot(tx, volume, new, api.settings.volumes.quotas, name)

    return Response(202, _shown(request, await api.store.run(write)))


class SnapshotChanges(Body, frozen=True):
    name: Annotated[str | UnsetType | None, TEXT] = UNSET
    description: Annotated[str | UnsetType | None, TEXT] = UNSET
    display_name: Annotated[str | UnsetType | None, TEXT] = UNSET
    display_description: Annotated[str | UnsetType | None, TEXT] = UNSET


@takes(SnapshotChanges, "snapshot")
async def update(api: Api, request: Request, given: SnapshotChanges) -> Response:
    changes = given_in(given)
    if not changes:
        raise BadRequest(
            "Invalid input for snapshot: one of name, description, display_name or display_description is required."
        )
    for old, new in (("display_name", "name"), ("display_description", "description")):
        if old in changes:
            value = changes.pop(old)
            changes.setdefault(new, value)

    def write(tx: Tx) -> SnapshotRow:
        snapshots.set_(tx, own(tx, request)["id"], **changes)
        return own(tx, request)

    return Response(200, _shown(request, await api.store.run(write)))


async def delete(api: Api, request: Request) -> Response:
    asked = Asked(request.id, request.caller.user_id)
    await api.store.run(lambda tx: making.delete_snapshot(tx, own(tx, request), asked))
    return Response(202)


# -- actions ----------------------------------------------------------------------------------------------------------
class ResetStatus(Body, frozen=True):
    status: Annotated[str, one_of(tuple(SnapshotStatus))]


async def _reset_status(api: Api, request: Request, given: ResetStatus) -> Response:
    def write(tx: Tx) -> None:
        row = own(tx, request)
        active = sagas.active_of(tx, of_snapshot(row["id"]))
        if active is not None:
            raise BadRequest(busy(row["id"], active["kind"]).replace("volume: Volume", "snapshot: Snapshot"))
        snapshots.set_(tx, row["id"], status=given.status)

    await api.store.run(write)
    return Response(202)


async def _force_delete(api: Api, request: Request, given: None) -> Response:
    asked = Asked(request.id, request.caller.user_id)
    await api.store.run(lambda tx: making.delete_snapshot(tx, own(tx, request), asked, force=True))
    return Response(202)


class UpdateStatus(Body, frozen=True):
    """How a hypervisor that makes the snapshot itself says how far it is."""

    status: Annotated[str, one_of(("creating", "available", "deleting", "error", "error_deleting"))]
    progress: Annotated[str | None, or_null(text(255))] = None


async def _update_status(api: Api, request: Request, given: UpdateStatus) -> Response:
    row = await api.store.read(own, request)
    raise BadRequest(
        f"Provided snapshot status {given.status} not allowed for snapshot with status {row['status']}: its backend "
        "alone says how far it is."
    )


async def _unmanage(api: Api, request: Request, given: None) -> Response:
    row = await api.store.read(own, request)
    raise BadRequest(
        f"Invalid snapshot: Snapshot {row['id']} lies with its volume, and is unmanaged with it alone: delete it."
    )


ACTIONS = {
    "os-reset_status": Action(_reset_status, ResetStatus, Need.ADMIN, since=0),
    "os-force_delete": Action(_force_delete, NOTHING, Need.ADMIN, since=0),
    "os-update_snapshot_status": Action(_update_status, UpdateStatus, Need.ADMIN, since=0),
    "os-unmanage": Action(_unmanage, NOTHING, Need.ADMIN, since=0),
}
action = dispatch(ACTIONS, "What may be done to a snapshot.", major=3)
