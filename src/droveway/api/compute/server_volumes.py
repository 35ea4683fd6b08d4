"""Volumes of a server: listed, attached and detached. What was asked is written with the saga that does it, and the
reply waits for none: the volume's status tells."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from droveway.api.compute import server_access
from droveway.api.compute.device_body import TAG
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, of, or_null
from droveway.api.http.render import Field, FieldTable
from droveway.api.http.request import Request, Response
from droveway.api.http.router import refusal
from droveway.api.http.validate import as_integer, canonical, is_dashed_uuid
from droveway.api.network.kinds import UUID
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.model import SagaKind
from droveway.domain.volume import lifecycle
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus
from droveway.store.compute import instances, server_volumes
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow
from droveway.store.volume import attachments, volumes
from droveway.store.volume.attachments import NewAttachment
from droveway.store.volume.rows import AttachmentRow

TAG_SINCE, TERMINATION_SINCE, UPDATE_SINCE, TAGS_SHOWN_SINCE = 49, 79, 85, 70
IDS_SINCE, NO_BODY_SINCE = 89, 101
_DEVICE = re.compile(r"/dev/x?[a-z]?d?[a-z]+[0-9]*")


def _device(path: str, value: Any) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise BadRequest(f"Invalid input for {path}: it must be a device such as /dev/vdb, or null.")
    return value


DEVICE = or_null(of(_device, type="string", pattern=f"^{_DEVICE.pattern}$"))


class NewVolume(Body, frozen=True, kw_only=True):
    """`device`: which one it gets is the hypervisor's choice, whatever is asked for."""

    volume_id: Annotated[str, UUID] = msgspec.field(name="volumeId")
    device: Annotated[str | None, DEVICE] = None
    tag: Annotated[str | None, TAG.since(TAG_SINCE)] = None
    delete_on_termination: Annotated[bool, FLAG.since(TERMINATION_SINCE)] = False


class ChangedVolume(Body, frozen=True, kw_only=True):
    """Whether it goes with its server. Another volume in its place: not here."""

    volume_id: Annotated[str, UUID] = msgspec.field(name="volumeId")
    device: Annotated[str | None, DEVICE.since(UPDATE_SINCE)] = None
    tag: Annotated[str | None, TAG.since(UPDATE_SINCE)] = None
    delete_on_termination: Annotated[bool | None, FLAG.since(UPDATE_SINCE)] = None
    server_id: Annotated[str | None, UUID.since(UPDATE_SINCE)] = msgspec.field(default=None, name="serverId")
    id: Annotated[str | None, UUID.since(UPDATE_SINCE)] = None


# -- shown ------------------------------------------------------------------------------------------------------------
def device_path(row: AttachmentRow) -> str | None:
    return f"/dev/{row['device']}" if row["device"] else None


ATTACHMENT = FieldTable(
    AttachmentRow,
    Field("id", "volume_id", 1, IDS_SINCE - 1),
    Field("device", lambda row, view: device_path(row)),
    Field("serverId", "instance_id"),
    Field("volumeId", "volume_id"),
    Field("tag", "tag", TAGS_SHOWN_SINCE),
    Field("delete_on_termination", "delete_on_termination", TERMINATION_SINCE),
    Field("attachment_id", "id", IDS_SINCE),
    Field("bdm_uuid", "id", IDS_SINCE),
)
# In the answer to an attachment the ids stand as they did before 2.89.
ATTACHED = FieldTable(
    AttachmentRow,
    Field("id", "volume_id"),
    Field("device", lambda row, view: device_path(row)),
    Field("serverId", "instance_id"),
    Field("volumeId", "volume_id"),
    Field("tag", "tag", TAGS_SHOWN_SINCE),
    Field("delete_on_termination", "delete_on_termination", TERMINATION_SINCE),
)


def _of_server(tx: Tx, request: Request, row: InstanceRow) -> AttachmentRow:
    """The attachment of the path's volume. Raises NotFound."""
    named = request.params["volume_id"]
    wanted = canonical(named) if is_dashed_uuid(named) else named
    found = attachments.of_volume(tx, wanted)
    if found is None or found["instance_id"] != row["id"]:
        raise NotFound(f"volume_id not found: {named[:64]} is not attached to server {row['id']}.")
    return found


async def listing(api: Api, request: Request) -> Response:
    given = dict(request.query)
    request.known_query(("limit", "offset"))
    most = api.settings.page_max
    limit = min(as_integer("limit", given["limit"], 0), most) if "limit" in given else most
    offset = as_integer("offset", given["offset"], 0) if "offset" in given else 0

    def read(tx: Tx) -> list[AttachmentRow]:
        return attachments.of_instance(tx, server_access.visible(tx, request)["id"])

    rows = (await api.store.read(read))[offset : offset + limit]
    render = ATTACHMENT.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"volumeAttachments": [render(row, None) for row in rows]})


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(lambda tx: _of_server(tx, request, server_access.visible(tx, request)))
    render = ATTACHMENT.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"volumeAttachment": render(row, None)})


# -- changed ----------------------------------------------------------------------------------------------------------
@takes(NewVolume, "volumeAttachment")
async def create(api: Api, request: Request, given: NewVolume) -> Response:
    new = NewAttachment(given.volume_id, delete_on_termination=given.delete_on_termination, tag=given.tag)

    def write(tx: Tx) -> AttachmentRow:
        server = server_access.changeable(tx, request)
        attachment_id = server_volumes.reserve(tx, server, new)
        params = {"attachment_id": attachment_id, "volume_id": given.volume_id}
        kind = SagaKind.ATTACH_VOLUME
        instances.intend(tx, server["id"], kind, params, request.id, request.caller.user_id)
        return attachments.get(tx, attachment_id)

    row = await api.store.run(write)
    if request.version >= NO_BODY_SINCE:
        return Response(202)
    render = ATTACHED.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"volumeAttachment": render(row, None)})


@takes(ChangedVolume, "volumeAttachment")
async def update(api: Api, request: Request, given: ChangedVolume) -> Response:
    def write(tx: Tx) -> None:
        server = server_access.changeable(tx, request)
        row = _of_server(tx, request, server)
        if given.volume_id != row["volume_id"] or request.version < UPDATE_SINCE:
            raise BadRequest(
                f"Volume {row['volume_id']} is not swapped for {given.volume_id}: detach the one and attach the "
                "other; to another backend a volume is moved by its own migration."
            )
        is_other = given.server_id not in (None, server["id"]) or given.id not in (None, row["volume_id"])
        if is_other or given.tag not in (None, row["tag"]) or given.device not in (None, device_path(row)):
            raise BadRequest("Invalid input for volumeAttachment: only delete_on_termination can be changed.")
        if given.delete_on_termination is not None:
            attachments.set_(tx, row["id"], delete_on_termination=given.delete_on_termination)

    await api.store.run(write)
    return Response(202)


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        server = server_access.changeable(tx, request)
        row = _of_server(tx, request, server)
        if row["boot_index"] == 0:
            raise Forbidden("Cannot detach a root device volume")
        volume = volumes.get(tx, row["volume_id"])
        reason = lifecycle.refusal(Verb.DETACH, volume["id"], volume["status"])
        if reason is not None or row["status"] == AttachmentStatus.DETACHING:
            raise BadRequest(reason or f"Invalid volume: Volume {volume['id']} is being detached already.")
        params = {"attachment_id": row["id"], "volume_id": row["volume_id"]}
        instances.intend(tx, server["id"], SagaKind.DETACH_VOLUME, params, request.id, request.caller.user_id)
        attachments.set_(tx, row["id"], status=AttachmentStatus.DETACHING.value)
        volumes.set_(tx, volume["id"], status=VolumeStatus.DETACHING.value)

    await api.store.run(write)
    return Response(202)


# -- asked for by the drivers of another Cinder -----------------------------------------------------------------------
@refusal
async def assisted_snapshot(api: Api, request: Request) -> Response:
    raise BadRequest(
        "The backends of this cloud take their snapshots themselves, and need no compute host for that: create a "
        "snapshot of the volume, by the Block Storage API."
    )
