"""Images and backups of a server: the image is there at once, without data, and the saga that makes it of the disk is
written with it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.compute import server_snapshots
from droveway.api.compute.server_intents import Params, intend
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import METADATA, NAME, text, whole
from droveway.api.http.request import Request, Response
from droveway.api.image import image_fields
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Fault, Forbidden, TooLarge
from droveway.domain.model import SagaKind
from droveway.domain.policy import Need
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx
from droveway.store.image import backups, images
from droveway.store.rows import InstanceRow

BODY_SINCE = 45  # before, a header says where the image is
SNAPSHOT = "snapshot"
ROTATION_MAX = 1_000_000


class CreateImage(Body, frozen=True):
    """An image of its root disk as it is at one moment; the server runs on."""

    name: Annotated[str, NAME]
    metadata: Annotated[dict[str, str], METADATA] = msgspec.field(default_factory=dict)


class CreateBackup(Body, frozen=True):
    """The same, of a kind: of that kind so many are kept, and the oldest beyond go. 0: none is made, and all go."""

    name: Annotated[str, NAME]
    backup_type: Annotated[str, text()]
    rotation: Annotated[int, whole(0, ROTATION_MAX)]
    metadata: Annotated[dict[str, str], METADATA] = msgspec.field(default_factory=dict)


async def _create_image(api: Api, request: Request, given: CreateImage) -> Response:
    image_id = api.names.uuid()

    def params(tx: Tx, row: InstanceRow) -> Params:
        given_by, named = request.caller.user_id, given.name
        if server_snapshots.begins_from_volume(tx, row):
            made, own = server_snapshots.begin(tx, api, row, given_by, named)
            new_image(tx, api, row, given_by, image_id, named, own | given.metadata)
            return {"image_id": image_id, "snapshots": made}
        new_image(tx, api, row, given_by, image_id, named, given.metadata)
        return {"image_id": image_id}

    await intend(api, request, SagaKind.CREATE_IMAGE, params)
    return _answer(api, request, image_id)


async def _create_backup(api: Api, request: Request, given: CreateBackup) -> Response:
    image_id = api.names.uuid()
    own = {**given.metadata, "image_type": given.backup_type, backups.KIND: given.backup_type}

    def params(tx: Tx, row: InstanceRow) -> Params:
        if server_snapshots.begins_from_volume(tx, row):
            raise BadRequest("Backup is not supported for volume-backed instances: back its volumes up.")
        wanted: Params = {"backup_type": given.backup_type, "rotation": given.rotation}
        if given.rotation:
            new_image(tx, api, row, request.caller.user_id, image_id, given.name, own)
            wanted["image_id"] = image_id
        return wanted

    await intend(api, request, SagaKind.CREATE_BACKUP, params)
    return _answer(api, request, image_id, is_made=given.rotation > 0)


def _answer(api: Api, request: Request, image_id: str, *, is_made: bool = True) -> Response:
    if request.version >= BODY_SINCE:
        return Response(202, {"image_id": image_id})
    location = f"{api.settings.base_url}/compute/v2.1/images/{image_id}".encode()
    return Response(202, headers=[(b"location", location)] if is_made else [])


def new_image(
    tx: Tx, api: Api, row: InstanceRow, user_id: str, image_id: str, name: str, metadata: dict[str, str]
) -> None:
    """Of the server's project; what it took from its own image goes with it. Raises Forbidden, BadRequest."""
    properties: dict[str, Any] = {
        **row["image_properties"],
        "image_type": SNAPSHOT,
        "base_image_ref": row["image_id"] or "",
        "user_id": user_id,
        **metadata,
        backups.SERVER: row["id"],
    }
    try:
        columns, own = image_fields.split(properties)
        if columns:
            raise BadRequest(f"Invalid input for metadata: {', '.join(columns)} is a member of an image, not its own.")
        quotas.claim_image(tx, row["project_id"], api.settings.quotas)
    except TooLarge as fault:
        raise Forbidden(fault.reason) from None
    except Fault as fault:
        raise BadRequest(fault.reason) from None
    images.create(
        tx,
        images.NewImage(
            id=image_id,
            project_id=row["project_id"],
            name=name,
            visibility="private",
            protected=False,
            container_format="bare",
            disk_format="qcow2",
            min_ram_mb=0,
            min_disk_gb=row["flavor"]["disk_gb"],
            properties=own,
            tags=[],
        ),
    )


ACTIONS = {
    "createImage": Action(_create_image, CreateImage, Need.MEMBER),
    "createBackup": Action(_create_backup, CreateBackup, Need.MEMBER),
}
