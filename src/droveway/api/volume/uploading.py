"""A volume as an image: the image is there at once, without data, and the saga that fills it is written with it."""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.bodies import Body
from droveway.api.http.kinds import FLAG, one_of, or_null, text
from droveway.api.http.render import micros
from droveway.api.http.request import Request, Response
from droveway.api.volume.volumes import own
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden
from droveway.domain.volume.lifecycle import Verb
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.volume import making, types
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import VolumeRow

PARAMS_SINCE = 1
FORMATS = ("raw", "qcow2")
_CINDERS = ("raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ploop")
_VISIBILITIES = ("private", "shared", "community", "public")
OF_THE_IMAGE = frozenset(
    {"image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size"}
)


class Upload(Body, frozen=True):
    """`force`: of a volume in use too, as it is at one moment."""

    image_name: Annotated[str, text(255, 1)]
    force: Annotated[bool, FLAG] = False
    disk_format: Annotated[str, one_of(_CINDERS)] = "raw"
    container_format: Annotated[str | None, or_null(text(255))] = "bare"
    visibility: Annotated[str, one_of(_VISIBILITIES).since(PARAMS_SINCE)] = "private"
    protected: Annotated[bool, FLAG.since(PARAMS_SINCE)] = False


async def upload(api: Api, request: Request, given: Upload) -> Response:
    _must_be_built(request, given)
    image_id = api.names.uuid()

    def write(tx: Tx) -> dict[str, Any]:
        row = own(tx, request)
        _new_image(tx, api, row, image_id, given)
        params = {"image_id": image_id, "disk_format": given.disk_format, "container_format": "bare"}
        making.begin(tx, Verb.UPLOAD, row, params, Asked(request.id, request.caller.user_id), force=given.force)
        return _shown(tx, request, own(tx, request), image_id, given)

    return Response(202, {"os-volume_upload_image": await api.store.run(write)})


def _must_be_built(request: Request, given: Upload) -> None:
    if given.disk_format not in FORMATS:
        raise BadRequest(
            f"Invalid input for disk_format: a volume is written as {' or '.join(FORMATS)}, not as {given.disk_format}."
        )
    if given.container_format not in (None, "", "bare"):
        raise BadRequest("Invalid input for container_format: an image of a volume is bare.")
    if given.visibility == "public" and not request.caller.is_admin:
        raise Forbidden("Policy doesn't allow volume:upload_public to be performed: it needs the role admin.")


def _new_image(tx: Tx, api: Api, row: VolumeRow, image_id: str, given: Upload) -> None:
    """Of the volume's project; what the volume kept of its own image goes with it."""
    quotas.claim_image(tx, row["project_id"], api.settings.quotas)
    kept = {name: value for name, value in row["image_metadata"].items() if name not in OF_THE_IMAGE}
    images.create(
        tx,
        images.NewImage(
            id=image_id,
            project_id=row["project_id"],
            name=given.image_name,
            visibility=given.visibility,
            protected=given.protected,
            container_format="bare",
            disk_format=given.disk_format,
            min_ram_mb=0,
            min_disk_gb=row["size_gb"],
            properties=kept,
            tags=[],
        ),
    )


def _shown(tx: Tx, request: Request, row: VolumeRow, image_id: str, given: Upload) -> dict[str, Any]:
    name = types.names(tx).get(row["volume_type_id"] or "")
    found = {
        "id": row["id"],
        "updated_at": micros(row["updated_at_us"]),
        "status": row["status"],
        "display_description": row["description"],
        "size": row["size_gb"],
        "volume_type": None if name is None else {"id": row["volume_type_id"], "name": name},
        "image_id": image_id,
        "container_format": "bare",
        "disk_format": given.disk_format,
        "image_name": given.image_name,
    }
    if request.version >= PARAMS_SINCE:
        found |= {"visibility": given.visibility, "protected": given.protected}
    return found
