"""Flavors: list, show, create, describe, delete; their extra specs; and who may use one that is not public."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from droveway.api.compute import fields
from droveway.api.compute.fields import View
from droveway.api.http import paging
from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, takes, takes_kind
from droveway.api.http.kinds import FLAG, NAME, of, or_null, text, whole
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag, as_integer, as_metadata, as_text
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import Flavor
from droveway.domain.policy import Need
from droveway.scheduler import extra_specs
from droveway.store.compute import flavors
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.rows import FlavorRow

_ID = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")
_QUERY = ("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
DESCRIPTION_MAX = 65535
FACTOR_MAX = 3.40282e38
SPECS_MAX = 128  # of one flavor: every server carries a copy
PRIVATE_ONLY_SINCE = 7


async def listing(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.FLAVOR)


async def detail(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.FLAVOR_DETAIL)


async def _list(api: Api, request: Request, table: FieldTable[FlavorRow]) -> Response:
    given = request.known_query(_QUERY)
    page = paging.asked(api, request)
    sort_key, sort_dir = given.get("sort_key", "flavorid"), given.get("sort_dir", "asc")
    if sort_key not in flavors.SORTABLE or sort_dir not in ("asc", "desc"):
        raise BadRequest(f"Flavors cannot be sorted by {sort_key[:40]} {sort_dir[:40]}.")

    def read(tx: Tx) -> list[FlavorRow]:
        try:
            rows = flavors.find(
                tx,
                is_public=_is_public(request, given),
                project_id=request.caller.project_id or "",
                min_ram_mb=as_integer("minRam", given.get("minRam", 0), 0),
                min_disk_gb=as_integer("minDisk", given.get("minDisk", 0), 0),
                sort_key=sort_key,
                descending=sort_dir == "desc",
                marker=page.marker,
                limit=page.limit,
            )
        except NotFound as fault:
            raise BadRequest(fault.reason) from None
        return list(rows)

    rows = await api.store.read(read)
    items = table.render(rows, request.version, View(api.settings.base_url))
    return Response(200, paging.listed(api, request, page, "flavors", items, rows))


def _is_public(request: Request, given: dict[str, str]) -> bool | None:
    """Administrators may ask for public, private or (with `none`) all flavors."""
    if not request.caller.is_admin or "is_public" not in given:
        return True
    if given["is_public"].lower() == "none":
        return None
    return as_flag("is_public", given["is_public"])


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(flavors.get, request.params["flavor"], request.scope)
    return _one(api, request, row)


def _one(api: Api, request: Request, row: FlavorRow) -> Response:
    render = fields.FLAVOR_DETAIL.renderer(request.version, is_admin=True)
    return Response(200, {"flavor": render(row, View(api.settings.base_url))})


def _id(path: str, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if _ID.fullmatch(as_text(path, value, 255, 1)) is None:
        raise BadRequest(f"Invalid input for {path}: it is made of a-z A-Z 0-9 . _ - and inner spaces.")
    return str(value)


def _factor(path: str, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not 0.0 < number <= FACTOR_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be a number greater than 0.")
    return number


_DESCRIPTION = or_null(text(DESCRIPTION_MAX)).since(55)
_FACTOR = of(_factor, anyOf=[{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}])


class NewFlavor(Body, frozen=True, kw_only=True):
    id: Annotated[str | None, or_null(of(_id, type=["string", "number"], minLength=1, maxLength=255))] = None
    name: Annotated[str, NAME]
    vcpus: Annotated[int, whole(1)]
    ram_mb: Annotated[int, whole(1)] = msgspec.field(name="ram")
    disk_gb: Annotated[int, whole(0)] = msgspec.field(name="disk")
    ephemeral_gb: Annotated[int, whole(0)] = msgspec.field(default=0, name="OS-FLV-EXT-DATA:ephemeral")
    swap_mb: Annotated[int, whole(0)] = msgspec.field(default=0, name="swap")
    rxtx_factor: Annotated[float, _FACTOR] = 1.0
    is_public: Annotated[bool, FLAG] = msgspec.field(default=True, name="os-flavor-access:is_public")
    description: Annotated[str | None, _DESCRIPTION] = None


@takes(NewFlavor, "flavor")
async def create(api: Api, request: Request, given: NewFlavor) -> Response:
    values = msgspec.structs.asdict(given) | {"id": given.id or api.names.uuid()}
    return _one(api, request, await api.store.run(flavors.create, Flavor(**values)))


class Description(Body, frozen=True):
    description: Annotated[str | None, _DESCRIPTION]


@takes(Description, "flavor")
async def update(api: Api, request: Request, given: Description) -> Response:
    """Only its description may change: what it promises is fixed."""
    return _one(api, request, await api.store.run(flavors.describe, request.params["flavor"], given.description))


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(flavors.remove, request.params["flavor"])
    return Response(202)


# -- extra specs ------------------------------------------------------------------------------------------------------
Specs = dict[str, str]


async def list_specs(api: Api, request: Request) -> Response:
    row = await api.store.read(flavors.get, request.params["flavor"], request.scope)
    return Response(200, {"extra_specs": row["extra_specs"]})


async def show_spec(api: Api, request: Request) -> Response:
    key = request.params["key"]
    row = await api.store.read(flavors.get, request.params["flavor"], request.scope)
    return Response(200, {key: _present(row["id"], row["extra_specs"], key)})


def _specs(path: str, value: Any) -> Specs:
    """Texts, or numbers, which become texts."""
    where = path or "the body"
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {where}: it must be an object of texts.")
    texts = {key: str(item) if type(item) in (int, float) else item for key, item in value.items()}
    return as_metadata(where, texts)


SPECS = of(_specs, type="object", additionalProperties={"type": ["string", "number"], "maxLength": 255})
ONE_SPEC = of(_specs, **SPECS.schema, minProperties=1, maxProperties=1)


@takes_kind(SPECS, "extra_specs")
async def add_specs(api: Api, request: Request, given: Specs) -> Response:
    await api.store.run(flavors.respec, request.params["flavor"], lambda present: _with(present, given))
    return Response(200, {"extra_specs": given})


@takes_kind(ONE_SPEC)
async def set_spec(api: Api, request: Request, given: Specs) -> Response:
    if len(given) != 1:
        raise BadRequest("Invalid input for the body: it must be an object with one member, the extra spec.")
    if request.params["key"] not in given:
        raise BadRequest("Request body and URI mismatch")
    await api.store.run(flavors.respec, request.params["flavor"], lambda present: _with(present, given))
    return Response(200, given)


async def remove_spec(api: Api, request: Request) -> Response:
    flavor_id, key = request.params["flavor"], request.params["key"]

    def without(present: Specs) -> Specs:
        _present(flavor_id, present, key)
        return {name: value for name, value in present.items() if name != key}

    await api.store.run(flavors.respec, flavor_id, without)
    return Response(200)


def _present(flavor_id: str, present: Specs, key: str) -> str:
    if key not in present:
        raise NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
    return present[key]


def _with(present: Specs, given: Specs) -> Specs:
    """Checked as a whole: one may only make sense beside another."""
    changed = {**present, **given}
    if len(changed) > SPECS_MAX:
        raise BadRequest(f"The flavor would have {len(changed)} extra specs; at most {SPECS_MAX} are accepted.")
    reason = extra_specs.check(changed)
    if reason is not None:
        raise BadRequest(reason)
    return changed


# -- access -----------------------------------------------------------------------------------------------------------
async def list_access(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> Response:
        row = flavors.get(tx, request.params["flavor"])
        if row["is_public"]:
            raise NotFound("Access list not available for public flavors.")
        return _access(tx, row["id"])

    return await api.store.read(read)


def _access(tx: Tx, flavor_id: str) -> Response:
    projects = flavors.access(tx, flavor_id)
    return Response(200, {"flavor_access": [{"flavor_id": flavor_id, "tenant_id": each} for each in projects]})


class Tenant(Body, frozen=True):
    tenant: Annotated[str, text()]


async def _open_to(api: Api, request: Request, given: Tenant) -> Response:
    def write(tx: Tx) -> Response:
        row = _of_project(tx, request, given)
        if row["is_public"] and request.version >= PRIVATE_ONLY_SINCE:
            raise Conflict("Can not add access to a public flavor.")
        flavors.open_to(tx, row["id"], given.tenant)
        return _access(tx, row["id"])

    return await api.store.run(write)


async def _close_to(api: Api, request: Request, given: Tenant) -> Response:
    def write(tx: Tx) -> Response:
        row = _of_project(tx, request, given)
        flavors.close_to(tx, row["id"], given.tenant)
        return _access(tx, row["id"])

    return await api.store.run(write)


def _of_project(tx: Tx, request: Request, given: Tenant) -> FlavorRow:
    if accounts.find_project(tx, id=given.tenant) is None:
        raise BadRequest(f"Project ID {given.tenant[:64]} is not a valid project.")
    return flavors.get(tx, request.params["flavor"])


ACTIONS = {
    "addTenantAccess": Action(_open_to, Tenant, Need.ADMIN),
    "removeTenantAccess": Action(_close_to, Tenant, Need.ADMIN),
}
action = dispatch(ACTIONS, "Who may use a flavor that is not public.")
