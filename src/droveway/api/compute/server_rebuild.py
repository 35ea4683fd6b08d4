"""Actions that take an image: rebuild and rescue. What does not fit is refused before anything is written."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.compute import fields, server_body, server_create, server_snapshots
from droveway.api.compute.server_intents import Params, intend
from droveway.api.compute.servers import view_of
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import FLAG, NAME, of, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import canonical, is_uuid
from droveway.api.volume import sources
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict
from droveway.domain.model import Flavor, SagaKind
from droveway.domain.policy import Need
from droveway.scheduler import image_properties as image_specs
from droveway.store.compute import guest_data, instances
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ImageRow, InstanceRow
from droveway.store.volume import attachments, volumes
from droveway.store.volume.rows import AttachmentRow

USER_DATA_SINCE, KEY_SINCE = 57, 54
REIMAGE_SINCE, RESCUE_OF_VOLUME_SINCE = 93, 87
_NO_OTHER_IMAGE = "Unable to rebuild with a different image for a volume-backed server."
_UNSET = "\0"  # no name, and no user data


def _image_id(path: str, value: Any) -> str:
    if not isinstance(value, str) or not is_uuid(value):
        raise BadRequest(f"Invalid input for {path}: it must be the id of an image.")
    return canonical(value)


IMAGE_ID = of(_image_id, type="string", format="uuid")


class Rebuild(Body, frozen=True, kw_only=True):
    """The server begins anew from that image, with its id and its ports. What is not named stays as it is."""

    image_id: Annotated[str, IMAGE_ID] = msgspec.field(name="imageRef")
    name: Annotated[str | None, of(server_body.stripped, **NAME.schema)] = None
    admin_password: Annotated[str | None, text()] = msgspec.field(default=None, name="adminPass")
    metadata: Annotated[dict[str, str] | None, server_body.SERVER_METADATA] = None
    preserve_ephemeral: Annotated[bool, FLAG] = False
    auto_disk_config: Annotated[bool | None, server_body.DISK_CONFIG] = msgspec.field(
        default=None, name="OS-DCF:diskConfig"
    )
    access_ipv4: Annotated[str | None, server_body.IPV4_OR_NOTHING] = msgspec.field(default=_UNSET, name="accessIPv4")
    access_ipv6: Annotated[str | None, server_body.IPV6_OR_NOTHING] = msgspec.field(default=_UNSET, name="accessIPv6")
    personality: Annotated[None, server_body.NO_FILES] = None
    description: Annotated[str | None, or_null(text(server_body.DESCRIPTION_MAX)).since(19)] = _UNSET
    key_name: Annotated[str | None, or_null(NAME).since(KEY_SINCE)] = _UNSET
    user_data: Annotated[str | None, server_body.USER_DATA.since(USER_DATA_SINCE)] = _UNSET
    trusted_image_certificates: Annotated[None, server_body.NO_CERTIFICATES] = None
    hostname: Annotated[str | None, server_body.HOSTNAME.since(90).until(93), server_body.FQDN.since(94)] = None


async def _rebuild(api: Api, request: Request, given: Rebuild) -> Response:
    def params(tx: Tx, row: InstanceRow) -> Params:
        root = attachments.root_of(tx, row["id"])
        if root is not None and request.version < REIMAGE_SINCE:
            raise BadRequest(_NO_OTHER_IMAGE)
        image = _fitting(tx, request, row, given.image_id)
        more = {} if root is None else _filling(tx, request, root, given.image_id)
        wanted: Params = more | {
            "image_id": given.image_id,
            "image_properties": image_specs.kept(image["properties"]),
            "preserve_ephemeral": given.preserve_ephemeral,
            "user_id": request.caller.user_id,
        }
        for name in ("name", "metadata", "hostname", "auto_disk_config"):
            if (value := getattr(given, name)) is not None:
                wanted[name] = value
        if given.admin_password is not None and row["config_drive"]:
            guest_data.change(tx, row["id"], {"admin_password": given.admin_password}, None)
        for name in ("description", "user_data", "access_ipv4", "access_ipv6"):
            if (value := getattr(given, name)) != _UNSET:
                wanted[name] = value
        if given.key_name != _UNSET:
            key = server_create.key_of(tx, request.caller.user_id, given.key_name)
            wanted |= {"key_name": given.key_name, "key": None if key is None else msgspec.to_builtins(key)}
        return wanted

    await intend(api, request, SagaKind.REBUILD, params)

    def read(tx: Tx) -> dict[str, Any]:
        row = instances.get(tx, request.params["server_id"], request.scope)
        render = fields.SERVER_REBUILT.renderer(request.version, is_admin=request.caller.is_admin)
        server = render(row, view_of(tx, api, request, [row]))
        if given.admin_password is not None and row["config_drive"]:  # by which alone its guest learns of it
            server["adminPass"] = given.admin_password
        return server

    server = await api.store.read(read)
    if request.version >= USER_DATA_SINCE:
        server["user_data"] = None if given.user_data == _UNSET else given.user_data
    location = f"{api.settings.base_url}/compute/v2.1/servers/{server['id']}".encode()
    return Response(202, {"server": server}, headers=[(b"location", location)])


def _filling(tx: Tx, request: Request, root: AttachmentRow, image_id: str) -> Params:
    """Of the volume that it begins from, which is written over. Raises BadRequest, Conflict."""
    volume_id = root["volume_id"]
    row = volumes.get(tx, volume_id)
    source = sources.of_image(tx, image_id, request.scope)
    source.must_fit(row["size_gb"])
    if root["read_only"] or row["read_only"]:
        raise Conflict(f"The root volume {volume_id} of this server is read-only, and is not written over.")
    if attachments.has_snapshots(tx, volume_id):
        raise Conflict(
            f"The root volume {volume_id} of this server has snapshots, and would be written over under them: delete "
            "them first, or create a server of that image."
        )
    return {"image_metadata": source.image_metadata}


def _fitting(tx: Tx, request: Request, row: InstanceRow, image_id: str) -> ImageRow:
    """That image, if a server of that flavor may be made of it where it is: its claim stays. Raises BadRequest."""
    image = server_create.image_of(tx, image_id, request.scope)
    flavor = msgspec.convert(row["flavor"], Flavor)
    server_create.check_image(image, flavor)
    before, after = row["image_properties"], image_specs.kept(image["properties"])
    placed = ("hw_numa_nodes", "hw_cpu_policy", "hw_cpu_thread_policy", "hw_architecture", "hw_firmware_type")
    for name in placed:
        if before.get(name) != after.get(name) and row["image_id"] != image_id:
            raise BadRequest(
                f"Image {image_id} asks for another host: its {name} is {after.get(name, 'not set')}, and the server's "
                f"is {before.get(name, 'not set')}; a server is rebuilt where it is. Create another one."
            )
    return image


# -- rescue -----------------------------------------------------------------------------------------------------------
class Rescue(Body, frozen=True):
    """The server begins from a disk of that image, or of its own one, and finds its own disk behind it. A password is
    not set in it, so none is shown."""

    admin_password: Annotated[str | None, text()] = msgspec.field(default=None, name="adminPass")
    image_id: Annotated[str | None, IMAGE_ID] = msgspec.field(default=None, name="rescue_image_ref")


async def _rescue(api: Api, request: Request, given: Rescue | None) -> Response:
    asked = given or Rescue()

    def params(tx: Tx, row: InstanceRow) -> Params:
        if server_snapshots.begins_from_volume(tx, row) and request.version < RESCUE_OF_VOLUME_SINCE:
            raise BadRequest("Cannot rescue a volume-backed instance")
        image_id = asked.image_id or row["image_id"]
        if image_id is None:
            raise BadRequest("The server was made of no image: name one as rescue_image_ref.")
        if asked.image_id is not None:
            server_create.image_of(tx, image_id, request.scope)
        return {"image_id": image_id, "user_id": request.caller.user_id}

    await intend(api, request, SagaKind.RESCUE, params)
    return Response(200, {})


ACTIONS = {
    "rebuild": Action(_rebuild, Rebuild, Need.MEMBER),
    "rescue": Action(_rescue, Rescue, Need.MEMBER, may_be_null=True),
}
