"""POST /volumes/{id}/action: what a project does to its volumes. What administrators do: volume_admin_actions.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, Form
from droveway.api.http.kinds import FLAG, either, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.volume import uploading, volume_admin_actions
from droveway.api.volume.attaching import free
from droveway.api.volume.kinds import METADATA, NOTHING, OBJECT_OR_TEXT, SIZE, UUID, UUID_OR_NULL
from droveway.api.volume.volumes import own
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.policy import Need
from droveway.domain.volume.lifecycle import Verb, snapshot_use_refusal
from droveway.domain.volume.model import VolumeStatus
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, making, snapshots, types, volumes
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import VolumeRow

Perform = Callable[[Api, Request, Any], Awaitable[Response]]
EXTEND_IN_USE_SINCE, REVERT_SINCE, COMPLETION_SINCE, REIMAGE_SINCE = 42, 40, 71, 68
V = VolumeStatus


def asked(request: Request) -> Asked:
    return Asked(request.id, request.caller.user_id)


def doing(write: Callable[[Tx, Api, Request, VolumeRow, Any], None]) -> Perform:
    """An action that answers with 202 and nothing else: `write` gets the volume's row."""

    async def perform(api: Api, request: Request, given: Any) -> Response:
        await api.store.run(lambda tx: write(tx, api, request, own(tx, request), given))
        return Response(202)

    return perform


def _type_name(tx: Tx, row: VolumeRow) -> str:
    return types.names(tx).get(row["volume_type_id"] or "", "")


# -- size, type, what it holds ----------------------------------------------------------------------------------------
class Extend(Body, frozen=True):
    new_size: Annotated[int, SIZE]


def _extend(tx: Tx, api: Api, request: Request, row: VolumeRow, given: Extend) -> None:
    if row["status"] == V.IN_USE and request.version < EXTEND_IN_USE_SINCE:
        raise BadRequest(
            f"Invalid volume: Volume {row['id']} status must be 'available' to extend, currently in-use; from "
            f"microversion 3.{EXTEND_IN_USE_SINCE} on it grows while it is in use."
        )
    making.extend(tx, row, given.new_size, asked(request), api.settings.volumes.quotas, _type_name(tx, row))


class Retype(Body, frozen=True):
    """`on-demand`: it may be moved to another backend for it."""

    new_type: Annotated[str, text(255, 1)]
    migration_policy: Annotated[str | None, or_null(either("on-demand", "never"))] = None


def _retype(tx: Tx, api: Api, request: Request, row: VolumeRow, given: Retype) -> None:
    try:
        wanted = types.get(tx, given.new_type, request.scope)
    except NotFound:
        raise BadRequest(f"Invalid input received: Invalid volume_type passed: {given.new_type[:64]}.") from None
    if wanted["id"] == row["volume_type_id"]:
        raise BadRequest(
            "Invalid volume: Retype needs volume to be in available or in-use state, not be part of an active "
            "migration or a consistency group, requested type has to be different than the one from the volume: "
            f"{wanted['name']}."
        )
    making.retype(tx, row, wanted, given.migration_policy or "never", asked(request), api.settings.volumes.quotas)


class Revert(Body, frozen=True):
    snapshot_id: Annotated[str | None, UUID_OR_NULL] = None


def _revert(tx: Tx, api: Api, request: Request, row: VolumeRow, given: Revert) -> None:
    """To its latest snapshot, and no other: what a backend can do with them all."""
    last = snapshots.last_of(tx, row["id"])
    if last is None:
        raise BadRequest(f"Volume {row['id']} doesn't have any snapshots.")
    if given.snapshot_id != last["id"]:
        raise BadRequest(f"Specified snapshot {given.snapshot_id} is None or not the latest one of volume {row['id']}.")
    if row["size_gb"] != last["size_gb"]:
        raise BadRequest(
            f"Can't revert volume {row['id']} to its latest snapshot {last['id']}. The volume size must be equal to "
            "the snapshot size."
        )
    sentence = snapshot_use_refusal(last["id"], last["status"])
    if sentence is not None:
        raise Conflict(sentence)
    try:
        making.revert(tx, row, last["id"], asked(request))
    except BadRequest as fault:
        raise Conflict(fault.reason) from None


# -- flags and metadata -----------------------------------------------------------------------------------------------
class SetBootable(Body, frozen=True):
    bootable: Annotated[bool, FLAG]


async def _set_bootable(api: Api, request: Request, given: SetBootable) -> Response:
    await api.store.run(lambda tx: volumes.set_(tx, own(tx, request)["id"], bootable=given.bootable))
    return Response(200)


class SetReadOnly(Body, frozen=True):
    readonly: Annotated[bool, FLAG]


def _set_read_only(tx: Tx, api: Api, request: Request, row: VolumeRow, given: SetReadOnly) -> None:
    making.must_be_allowed(tx, Verb.SET_READ_ONLY, row)
    volumes.set_(tx, row["id"], read_only=given.readonly)


class ImageMetadata(Body, frozen=True):
    metadata: Annotated[dict[str, str], METADATA]


async def _set_image_metadata(api: Api, request: Request, given: ImageMetadata) -> Response:
    def write(tx: Tx) -> dict[str, str]:
        row = own(tx, request)
        making.must_be_allowed_now(Verb.CHANGE_METADATA, row)
        new = row["image_metadata"] | given.metadata
        volumes.set_(tx, row["id"], image_metadata=new)
        return new

    return Response(200, {"metadata": await api.store.run(write)})


async def _show_image_metadata(api: Api, request: Request, given: None) -> Response:
    row = await api.store.read(own, request)
    return Response(200, {"metadata": row["image_metadata"]})


class ImageMetadataKey(Body, frozen=True):
    key: Annotated[str, text(255, 1)]


async def _unset_image_metadata(api: Api, request: Request, given: ImageMetadataKey) -> Response:
    def write(tx: Tx) -> None:
        row = own(tx, request)
        making.must_be_allowed_now(Verb.CHANGE_METADATA, row)
        if given.key not in row["image_metadata"]:
            raise NotFound(f"Glance metadata for volume/snapshot {row['id']} cannot be found.")
        left = {key: value for key, value in row["image_metadata"].items() if key != given.key}
        volumes.set_(tx, row["id"], image_metadata=left)

    await api.store.run(write)
    return Response(200)


# -- attaching, as it was asked for before there were attachments -----------------------------------------------------
def _reserve(tx: Tx, api: Api, request: Request, row: VolumeRow, given: None) -> None:
    making.must_be_allowed(tx, Verb.RESERVE, row)
    volumes.set_(tx, row["id"], status=V.ATTACHING.value, previous_status=row["status"])


def _unreserve(tx: Tx, api: Api, request: Request, row: VolumeRow, given: None) -> None:
    """One that nothing has reserved stays as it is, as in Cinder."""
    held = attachments.of_volume(tx, row["id"])
    if held is not None:
        raise BadRequest(f"Invalid volume: Volume {row['id']} is reserved by attachment {held['id']}: delete that.")
    if row["status"] == V.ATTACHING:
        volumes.set_(tx, row["id"], status=V.AVAILABLE.value)


def _begin_detaching(tx: Tx, api: Api, request: Request, row: VolumeRow, given: None) -> None:
    if row["status"] != V.IN_USE:
        making.must_be_allowed(tx, Verb.DETACH, row)
    volumes.set_(tx, row["id"], status=V.DETACHING.value, previous_status=row["status"])


def _roll_detaching(tx: Tx, api: Api, request: Request, row: VolumeRow, given: None) -> None:
    if row["status"] == V.DETACHING and attachments.of_volume(tx, row["id"]) is not None:
        volumes.set_(tx, row["id"], status=V.IN_USE.value)


class Detach(Body, frozen=True):
    attachment_id: Annotated[str | None, UUID_OR_NULL] = None


def _detach(tx: Tx, api: Api, request: Request, row: VolumeRow, given: Detach | None) -> None:
    held = attachments.of_volume(tx, row["id"])
    if held is None or (given is not None and given.attachment_id not in (None, held["id"])):
        raise BadRequest(
            "Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be "
            f"'attached' to detach; volume {row['id']} has no such attachment."
        )
    free(tx, held, row)


class Attach(Body, frozen=True):
    mountpoint: Annotated[str, text(255, 1)]
    instance_uuid: Annotated[str | None, UUID] = None
    host_name: Annotated[str | None, text(255)] = None
    mode: Annotated[str, either("rw", "ro")] = "rw"


class Connect(Body, frozen=True):
    connector: Annotated[Any, OBJECT_OR_TEXT]


async def _by_attachments(api: Api, request: Request, given: Any) -> Response:
    """Who may open a volume is held by an attachment here, and never without one."""
    await api.store.read(own, request)
    raise BadRequest(
        "Invalid volume: a volume is attached to a server by the Compute API ('openstack server add volume'), and to "
        "anything else by an attachment (POST /attachments); there is no third way."
    )


class Reimage(Body, frozen=True):
    image_id: Annotated[str, UUID]
    reimage_reserved: Annotated[bool, FLAG] = False


async def _reimage(api: Api, request: Request, given: Reimage) -> Response:
    await api.store.read(own, request)
    raise BadRequest(
        "Invalid volume: a volume keeps what it holds here: make another one of the image, or rebuild the server."
    )


class ExtendCompletion(Body, frozen=True):
    error: Annotated[Any, OBJECT_OR_TEXT] = None


async def _extend_completion(api: Api, request: Request, given: ExtendCompletion) -> Response:
    await api.store.read(own, request)
    raise BadRequest("Invalid volume: Volume is not being extended by anybody who would have to say that it is done.")


def _member(perform: Perform, form: Form, since: int = 0, *, null: bool = False) -> Action:
    return Action(perform, form, Need.MEMBER, since=since, may_be_null=null)


ACTIONS = {
    "os-extend": _member(doing(_extend), Extend),
    "os-retype": _member(doing(_retype), Retype),
    "revert": _member(doing(_revert), Revert, REVERT_SINCE),
    "os-set_bootable": _member(_set_bootable, SetBootable),
    "os-update_readonly_flag": _member(doing(_set_read_only), SetReadOnly),
    "os-set_image_metadata": _member(_set_image_metadata, ImageMetadata),
    "os-show_image_metadata": Action(_show_image_metadata, NOTHING, Need.READER, since=0),
    "os-unset_image_metadata": _member(_unset_image_metadata, ImageMetadataKey),
    "os-volume_upload_image": _member(uploading.upload, uploading.Upload),
    "os-reserve": _member(doing(_reserve), NOTHING),
    "os-unreserve": _member(doing(_unreserve), NOTHING),
    "os-begin_detaching": _member(doing(_begin_detaching), NOTHING),
    "os-roll_detaching": _member(doing(_roll_detaching), NOTHING),
    "os-attach": _member(_by_attachments, Attach),
    "os-detach": _member(doing(_detach), Detach, null=True),
    "os-initialize_connection": _member(_by_attachments, Connect),
    "os-terminate_connection": _member(_by_attachments, Connect),
    "os-reimage": _member(_reimage, Reimage, REIMAGE_SINCE),
    "os-extend_volume_completion": Action(_extend_completion, ExtendCompletion, Need.SERVICE, since=COMPLETION_SINCE),
    **volume_admin_actions.ACTIONS,
}
action = dispatch(ACTIONS, "What may be done to a volume.", major=3)
