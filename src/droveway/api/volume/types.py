"""Types of volumes: what each promises (extra specs), who may use it, and the default."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, given_in, takes, takes_kind
from droveway.api.http.kinds import FLAG, of, text
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response
from droveway.api.http.router import refusal
from droveway.api.volume import fields, listing
from droveway.api.volume.kinds import EXTRA_SPECS, REQUIRED_NAME, SPECS, TEXT
from droveway.api.volume.listing import Filter, Items, Listed
from droveway.api.volume.volume_create import NO_MULTIATTACH
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.policy import Need
from droveway.store.engine.transaction import Tx
from droveway.store.volume import listing as rows_of
from droveway.store.volume import types
from droveway.store.volume.rows import VolumeTypeRow
from droveway.store.volume.tables import volume_types as table

Specs = dict[str, str]
SPECS_FILTER_SINCE = 52
LISTED = Listed(
    filters={
        "id": Filter("id"),
        "name": Filter("name"),
        "extra_specs": Items("extra_specs", since=SPECS_FILTER_SINCE),
        "description": Filter("description", admin_only=True),
    },
    sorts={"id": "id", "name": "name", "created_at": "created_at_us", "updated_at": "updated_at_us"},
    ignored={"is_public": lambda value: True},
)


async def listing_(api: Api, request: Request) -> Response:
    """Public ones and those the project may use; an administrator asks with `is_public` for others."""
    query = listing.read(api, request, LISTED)
    is_admin = request.caller.is_admin
    public = _is_public(dict(request.query).get("is_public"), is_admin=is_admin)
    equal = query.wanted.equal if public is None else (*query.wanted.equal, ("is_public", public))

    def read(tx: Tx) -> dict[str, Any]:
        usable = () if request.scope is None else (types.visible(request.scope),)
        wanted = rows_of.without_project(query.wanted, equal)
        rows = rows_of.find(tx, VolumeTypeRow, table, wanted, *usable)
        shown = fields.TYPE.render(rows, request.version, is_admin, is_admin=is_admin)
        found = listing.body(api, request, "volume_types", shown, rows[-1]["id"] if rows else None, query, None)
        if "volume_types_links" in found:
            found["volume_type_links"] = found.pop("volume_types_links")
        return found

    return Response(200, await api.store.read(read))


def _is_public(given: str | None, *, is_admin: bool) -> bool | None:
    """None: either."""
    if not is_admin or (given or "").lower() == "none":
        return None
    try:
        return True if given is None else listing.as_yes("is_public", given)
    except BadRequest:
        raise BadRequest(f"Invalid is_public filter [{(given or '')[:32]}]") from None


def _shown(request: Request, row: VolumeTypeRow, of: FieldTable[VolumeTypeRow] = fields.TYPE) -> dict[str, Any]:
    is_admin = request.caller.is_admin
    return {"volume_type": of.renderer(request.version, is_admin=is_admin)(row, is_admin)}


def _own(tx: Tx, api: Api, request: Request) -> VolumeTypeRow:
    given = request.params["type_id"]
    if given == "default":
        return types.default(tx, request.caller.project_id, api.settings.volumes.default_type)
    return types.get(tx, given, request.scope)


async def show(api: Api, request: Request) -> Response:
    """By id or name; `default` is the type of volumes that name none."""
    return Response(200, _shown(request, await api.store.read(_own, api, request)))


def _check(specs: Specs) -> Specs:
    """What a type may promise that is not offered here is refused where it is written, and not with each volume."""
    if specs.get("multiattach", "").lower().endswith("true"):
        raise BadRequest(f"Invalid input for extra_specs.multiattach: {NO_MULTIATTACH}.")
    return specs


class NewType(Body, frozen=True):
    name: Annotated[str, REQUIRED_NAME]
    description: Annotated[str | None, TEXT] = None
    extra_specs: Annotated[Specs, SPECS] = msgspec.field(default_factory=dict)
    is_public: Annotated[bool, FLAG] = msgspec.field(default=True, name="os-volume-type-access:is_public")


@takes(NewType, "volume_type")
async def create(api: Api, request: Request, given: NewType) -> Response:
    row = await api.store.run(
        types.create, given.name, given.description, _check(given.extra_specs), is_public=given.is_public
    )
    return Response(200, _shown(request, row, fields.TYPE_MADE))


class TypeChanges(Body, frozen=True):
    name: Annotated[str | UnsetType | None, TEXT] = UNSET
    description: Annotated[str | UnsetType | None, TEXT] = UNSET
    is_public: Annotated[bool | UnsetType, FLAG] = UNSET


@takes(TypeChanges, "volume_type")
async def update(api: Api, request: Request, given: TypeChanges) -> Response:
    changes = given_in(given)
    if changes.get("name", "") is None:
        del changes["name"]
    if not changes or changes.get("name") == "":
        raise BadRequest("Specify volume type name, description, is_public or a combination thereof.")

    def write(tx: Tx) -> VolumeTypeRow:
        return types.change(tx, types.get(tx, request.params["type_id"])["id"], **changes)

    return Response(200, _shown(request, await api.store.run(write), fields.TYPE_CHANGED))


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: types.remove(tx, types.get(tx, request.params["type_id"])["id"]))
    return Response(202)


# -- extra specs ------------------------------------------------------------------------------------------------------
async def list_specs(api: Api, request: Request) -> Response:
    row = await api.store.read(_own, api, request)
    return Response(200, {"extra_specs": _shown(request, row)["volume_type"]["extra_specs"]})


@takes_kind(EXTRA_SPECS, "extra_specs")
async def add_specs(api: Api, request: Request, given: Specs) -> Response:
    await api.store.run(_change_specs, request, _check(given))
    return Response(200, {"extra_specs": given})


def _change_specs(tx: Tx, request: Request, given: Specs) -> None:
    row = types.get(tx, request.params["type_id"])
    types.change(tx, row["id"], extra_specs=row["extra_specs"] | given)


async def show_spec(api: Api, request: Request) -> Response:
    row = await api.store.read(_own, api, request)
    specs, key = _shown(request, row)["volume_type"]["extra_specs"], request.params["key"]
    if key not in specs:
        raise _no_spec(row, key)
    return Response(200, {key: specs[key]})


def _no_spec(row: VolumeTypeRow, key: str) -> NotFound:
    return NotFound(f"Volume Type {row['id']} has no extra specs with key {key[:64]}.")


def _one_spec(path: str, value: Any) -> Specs:
    found: Specs = EXTRA_SPECS.read(path or "the body", value)
    if len(found) != 1:
        raise BadRequest("Request body contains too many items or none: it is an object of one.")
    return found


@takes_kind(of(_one_spec, **dict(EXTRA_SPECS.schema) | {"minProperties": 1, "maxProperties": 1}))
async def set_spec(api: Api, request: Request, given: Specs) -> Response:
    if request.params["key"] not in given:
        raise BadRequest("Request body and URI mismatch")
    await api.store.run(_change_specs, request, _check(given))
    return Response(200, given)


async def remove_spec(api: Api, request: Request) -> Response:
    key = request.params["key"]

    def write(tx: Tx) -> None:
        row = types.get(tx, request.params["type_id"])
        if key not in row["extra_specs"]:
            raise _no_spec(row, key)
        left = {name: value for name, value in row["extra_specs"].items() if name != key}
        types.change(tx, row["id"], extra_specs=left)

    await api.store.run(write)
    return Response(202)


# -- who may use it ---------------------------------------------------------------------------------------------------
async def list_access(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[dict[str, str]]:
        row = types.get(tx, request.params["type_id"])
        if row["is_public"]:
            raise NotFound(f"Access list not available for public volume types: {row['name']} is one.")
        return [{"volume_type_id": row["id"], "project_id": project} for project in types.access(tx, row["id"])]

    return Response(200, {"volume_type_access": await api.store.read(read)})


class ProjectAccess(Body, frozen=True):
    project: Annotated[str, text(255, 1)]


async def _add_access(api: Api, request: Request, given: ProjectAccess) -> Response:
    def write(tx: Tx) -> None:
        row = types.get(tx, request.params["type_id"])
        if row["is_public"]:
            raise Conflict(f"Type access modification is not applicable to public volume type {row['name']}.")
        types.allow(tx, row["id"], given.project)

    await api.store.run(write)
    return Response(202)


async def _remove_access(api: Api, request: Request, given: ProjectAccess) -> Response:
    def write(tx: Tx) -> None:
        row = types.get(tx, request.params["type_id"])
        if row["is_public"]:
            raise Conflict(f"Type access modification is not applicable to public volume type {row['name']}.")
        types.disallow(tx, row["id"], given.project)

    await api.store.run(write)
    return Response(202)


action = dispatch(
    {
        "addProjectAccess": Action(_add_access, ProjectAccess, Need.ADMIN, since=0),
        "removeProjectAccess": Action(_remove_access, ProjectAccess, Need.ADMIN, since=0),
    },
    "Who may use a type that is not public.",
    major=3,
)


# -- encryption: there is none ----------------------------------------------------------------------------------------
async def show_encryption(api: Api, request: Request) -> Response:
    """Of no type there is any."""
    await api.store.read(_own, api, request)
    return Response(200, {})


@refusal
async def refuse_encryption(api: Api, request: Request) -> Response:
    raise BadRequest(
        "Volumes are not encrypted here: no key manager is spoken to. Encrypt within the guest, or below the backend."
    )
