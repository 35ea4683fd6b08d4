"""Attachments (3.27): who holds a volume. A server of ours is given one by the Compute API; here one is reserved for
something else, such as a hypervisor that a client runs.

What a host opens a volume with is shown to services and administrators alone.
"""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import anything, either, or_null
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.volume import fields, listing
from droveway.api.volume.attaching import free, free_host, server_of
from droveway.api.volume.fields import VolumeView
from droveway.api.volume.kinds import NOTHING, OBJECT_OR_TEXT, UUID, UUID_OR_NULL
from droveway.api.volume.listing import Filter, Listed
from droveway.api.volume.volumes import shows_hosts
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound
from droveway.domain.policy import Need
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.volume import attachments, making, volumes
from droveway.store.volume import listing as rows_of
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import AttachmentRow
from droveway.store.volume.tables import volume_attachments as table

SINCE, COMPLETE_SINCE, MODE_SINCE = 27, 44, 54
LISTED = Listed(
    filters={
        "id": Filter("id", admin_only=True),
        "volume_id": Filter("volume_id"),
        "status": Filter("status"),
        "attach_status": Filter("status"),
        "instance_id": Filter("instance_id"),
    },
    sorts={
        "id": "id",
        "volume_id": "volume_id",
        "status": "status",
        "attach_status": "status",
        "instance_id": "instance_id",
        "created_at": "created_at_us",
    },
)


def _view(api: Api, request: Request) -> VolumeView:
    return VolumeView(api.settings.base_url, shows_hosts=shows_hosts(request))


async def summaries(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.ATTACHMENT_SUMMARY)


async def detail(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.ATTACHMENT)


async def _listing(api: Api, request: Request, of: FieldTable[AttachmentRow]) -> Response:
    query = listing.read(api, request, LISTED)

    def read(tx: Tx) -> bytes:
        rows = rows_of.find(tx, AttachmentRow, table, query.wanted)
        render, view = of.renderer(request.version, is_admin=request.caller.is_admin), _view(api, request)
        return encode({"attachments": encode_each(render(row, view) for row in rows)})

    return Response(200, await api.store.read(read))


def _own(tx: Tx, request: Request) -> AttachmentRow:
    return attachments.get(tx, request.params["attachment_id"], request.scope)


def _shown(api: Api, request: Request, row: AttachmentRow) -> dict[str, Any]:
    render = fields.ATTACHMENT.renderer(request.version, is_admin=request.caller.is_admin)
    return {"attachment": render(row, _view(api, request))}


async def show(api: Api, request: Request) -> Response:
    return Response(200, _shown(api, request, await api.store.read(_own, request)))


class NewAttachment(Body, frozen=True):
    """A reservation; with a connector its host is admitted at once."""

    volume_uuid: Annotated[str, UUID]
    instance_uuid: Annotated[str | None, UUID_OR_NULL] = None
    connector: Annotated[Any, OBJECT_OR_TEXT] = None
    mode: Annotated[str | None, or_null(either("rw", "ro")).since(MODE_SINCE)] = None


@takes(NewAttachment, "attachment")
async def create(api: Api, request: Request, given: NewAttachment) -> Response:
    host = _host_of(request, given.connector) if given.connector else None

    def write(tx: Tx) -> tuple[str, str]:
        volume = volumes.get(tx, given.volume_uuid, request.scope)
        if server_of(tx, given.instance_uuid) is not None:
            raise Conflict(f"Attach volume to instance {given.instance_uuid} using the Compute API.")
        making.must_be_allowed(tx, Verb.RESERVE, volume)
        row = AttachmentRow(
            id=tx.names.uuid(),
            volume_id=volume["id"],
            project_id=volume["project_id"],
            instance_id=None,  # one of ours alone stands there
            host=None,
            to_host=None,
            status=AttachmentStatus.RESERVED.value,
            read_only=volume["read_only"] or given.mode == "ro",
            device=None,
            source=None,
            connector={"instance": given.instance_uuid} if given.instance_uuid else None,
            bus="virtio",
            boot_index=-1,
            place=0,
            delete_on_termination=False,
            tag=None,
            attached_at_us=None,
            created_at_us=tx.now_us,
        )
        attachments.insert_row(tx, row)
        volumes.set_(tx, volume["id"], status=VolumeStatus.RESERVED.value, previous_status=volume["status"])
        return row["id"], "" if host is None else _connect(tx, request, row, host, given.connector)

    attachment_id, saga_id = await api.store.run(write)
    return await _answer(api, request, attachment_id, saga_id)


# -- a host that opens it by itself -----------------------------------------------------------------------------------
class Connector(Body, frozen=True):
    connector: Annotated[Any, anything(type="object", minProperties=1)]


@takes(Connector, "attachment")
async def update(api: Api, request: Request, given: Connector) -> Response:
    """The connector's host is admitted; the answer, which waits for that, says how it opens the volume."""
    host = _host_of(request, given.connector)

    def write(tx: Tx) -> tuple[str, str]:
        row = _own(tx, request)
        if server_of(tx, row["instance_id"]) is not None:
            raise Conflict(f"Attachment {row['id']} is that of a server: the Compute API says on which host it is.")
        if row["host"] == host:
            return row["id"], ""
        if row["host"] is not None:
            raise Conflict(f"duplicate connectors detected on volume {row['volume_id']}: host {row['host']} has it.")
        return row["id"], _connect(tx, request, row, host, given.connector)

    attachment_id, saga_id = await api.store.run(write)
    return await _answer(api, request, attachment_id, saga_id)


def _host_of(request: Request, connector: Any) -> str:
    """Raises Forbidden: a tenant has no host that could open a volume. BadRequest."""
    if not shows_hosts(request):
        raise Forbidden(
            "A connector is given by a service or an administrator: a volume comes to a server by 'openstack server "
            "add volume'."
        )
    if not isinstance(connector, dict) or not isinstance(connector.get("host"), str):
        raise BadRequest("Invalid input for attachment.connector: it must be an object that names a 'host'.")
    host: str = connector["host"]
    return host


def _connect(tx: Tx, request: Request, row: AttachmentRow, host: str, connector: Any) -> str:
    """The saga that admits it. Raises BadRequest where it is no host of this cloud."""
    try:
        hosts.get(tx, host)
    except NotFound:
        raise BadRequest(
            f"Invalid input for attachment.connector: {host[:64]} is no host of this cloud, and no other can open a "
            "volume; 'openstack hypervisor list' shows those there are."
        ) from None
    kept = {**(row["connector"] or {}), "given": connector}
    attachments.set_(tx, row["id"], connector=kept)
    volume = volumes.get(tx, row["volume_id"])
    params = {"attachment_id": row["id"], "host": host}
    return making.begin(tx, Verb.CONNECT, volume, params, Asked(request.id, request.caller.user_id))


async def _answer(api: Api, request: Request, attachment_id: str, saga_id: str) -> Response:
    """Once its host is admitted. Raises Conflict with the reason where it was not."""
    if saga_id:
        done, reason = await api.sagas_settled(saga_id, api.settings.precheck_timeout_s)
        if not done:
            raise Conflict(f"Unable to update attachment ({reason}).")
    row = await api.store.read(attachments.get, attachment_id)
    return Response(200, _shown(api, request, row))


async def delete(api: Api, request: Request) -> Response:
    """Ends a reservation; where a service's host was admitted, once its backend has let go of it. Answers with the
    attachments that are left, which are none."""

    def write(tx: Tx) -> None:
        row = _own(tx, request)
        volume = volumes.get(tx, row["volume_id"])
        if row["host"] is not None and shows_hosts(request):
            free_host(tx, row, volume, Asked(request.id, request.caller.user_id))
        else:
            free(tx, row, volume)

    await api.store.run(write)
    return Response(200, {"attachments": []})


async def _complete(api: Api, request: Request, given: None) -> Response:
    def write(tx: Tx) -> None:
        row = _own(tx, request)
        if row["status"] == AttachmentStatus.ATTACHED:
            return
        if row["host"] is None or server_of(tx, row["instance_id"]) is not None:
            raise BadRequest(
                f"Invalid volume: attachment {row['id']} is {row['status']}: it is complete once its host has opened "
                "it."
            )
        attachments.set_(tx, row["id"], status=AttachmentStatus.ATTACHED.value, attached_at_us=tx.now_us)
        volumes.set_(tx, row["volume_id"], status=VolumeStatus.IN_USE.value)

    await api.store.run(write)
    return Response(204)


action = dispatch(
    {"os-complete": Action(_complete, NOTHING, Need.MEMBER, since=COMPLETE_SINCE)},
    "What a client says of an attachment.",
    major=3,
)
