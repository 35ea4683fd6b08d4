"""Flavors: list, show, create, describe, delete; their extra specs; and who may use one that is not public."""

from __future__ import annotations

import re
from typing import Any

from droveway.api.compute import fields
from droveway.api.compute.fields import View
from droveway.api.compute.servers import scope_of
from droveway.api.http import paging
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import Fields, as_flag, as_integer, as_metadata, as_text, the
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import Flavor
from droveway.scheduler import extra_specs
from droveway.store.compute import flavors
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.rows import FlavorRow

_ID = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")
_QUERY = ("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
_BODY = (
    "name",
    "id",
    "ram",
    "vcpus",
    "disk",
    "OS-FLV-EXT-DATA:ephemeral",
    "swap",
    "rxtx_factor",
    "os-flavor-access:is_public",
)
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
            raise BadRequest(fault.sentence) from None
        return list(rows)

    rows = await api.store.read(read)
    body: dict[str, Any] = {"flavors": table.render(rows, request.version, View(api.settings.base_url))}
    more = paging.next_links(api, request, page, len(rows), rows[-1]["id"] if rows else None)
    if more:
        body["flavors_links"] = more
    return Response(200, body)


def _is_public(request: Request, given: dict[str, str]) -> bool | None:
    """Administrators may ask for public, private or (with `none`) all flavors."""
    if not request.caller.is_admin or "is_public" not in given:
        return True
    if given["is_public"].lower() == "none":
        return None
    return as_flag("is_public", given["is_public"])


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(flavors.get, request.params["flavor"], scope_of(request))
    return _one(api, request, row)


def _one(api: Api, request: Request, row: FlavorRow) -> Response:
    render = fields.FLAVOR_DETAIL.renderer(request.version, is_admin=True)
    return Response(200, {"flavor": render(row, View(api.settings.base_url))})


async def create(api: Api, request: Request) -> Response:
    known = (*_BODY, "description") if request.version >= 55 else _BODY
    given = Fields(the(await request.json(api.settings.max_body_bytes), "flavor"), "flavor", known)
    flavor = Flavor(
        id=_id(api, given.value("id")),
        name=given.name("name"),
        vcpus=given.required_integer("vcpus", 1),
        ram_mb=given.required_integer("ram", 1),
        disk_gb=given.required_integer("disk", 0),
        ephemeral_gb=given.integer("OS-FLV-EXT-DATA:ephemeral", 0, default=0),
        swap_mb=given.integer("swap", 0, default=0),
        rxtx_factor=_factor(given.value("rxtx_factor", 1.0)),
        is_public=given.flag("os-flavor-access:is_public", default=True),
        description=given.text_or_none("description", DESCRIPTION_MAX),
    )
    return _one(api, request, await api.store.run(flavors.create, flavor))


def _id(api: Api, value: Any) -> str:
    if value is None:
        return api.names.uuid()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if _ID.fullmatch(as_text("flavor.id", value, 255, 1)) is None:
        raise BadRequest("Invalid input for flavor.id: it is made of a-z A-Z 0-9 . _ - and inner spaces.")
    return str(value)


def _factor(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not 0.0 < number <= FACTOR_MAX:
        raise BadRequest("Invalid input for flavor.rxtx_factor: it must be a number greater than 0.")
    return number


async def update(api: Api, request: Request) -> Response:
    """Only its description may change: what it promises is fixed."""
    outer = Fields(await request.json(api.settings.max_body_bytes), "the body", ("flavor",))
    given = outer.object("flavor", ("description",))
    given.required("description")
    description = given.text_or_none("description", DESCRIPTION_MAX)
    return _one(api, request, await api.store.run(flavors.describe, request.params["flavor"], description))


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(flavors.remove, request.params["flavor"])
    return Response(202)


# -- extra specs ------------------------------------------------------------------------------------------------------
Specs = dict[str, str]


async def list_specs(api: Api, request: Request) -> Response:
    row = await api.store.read(flavors.get, request.params["flavor"], scope_of(request))
    return Response(200, {"extra_specs": row["extra_specs"]})


async def show_spec(api: Api, request: Request) -> Response:
    key = request.params["key"]
    row = await api.store.read(flavors.get, request.params["flavor"], scope_of(request))
    return Response(200, {key: _present(row["id"], row["extra_specs"], key)})


async def add_specs(api: Api, request: Request) -> Response:
    given = _specs("extra_specs", the(await request.json(api.settings.max_body_bytes), "extra_specs"))
    await api.store.run(flavors.respec, request.params["flavor"], lambda present: _with(present, given))
    return Response(200, {"extra_specs": given})


async def set_spec(api: Api, request: Request) -> Response:
    given = _specs("the body", await request.json(api.settings.max_body_bytes))
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


def _specs(where: str, value: Any) -> Specs:
    """Texts, or numbers, which become texts."""
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {where}: it must be an object of texts.")
    texts = {key: str(item) if type(item) in (int, float) else item for key, item in value.items()}
    return as_metadata(where, texts)


def _with(present: Specs, given: Specs) -> Specs:
    """Checked as a whole: one may only make sense beside another."""
    changed = {**present, **given}
    if len(changed) > SPECS_MAX:
        raise BadRequest(f"The flavor would have {len(changed)} extra specs; at most {SPECS_MAX} are accepted.")
    sentence = extra_specs.check(changed)
    if sentence is not None:
        raise BadRequest(sentence)
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


async def action(api: Api, request: Request) -> Response:
    """addTenantAccess or removeTenantAccess."""
    body = await request.json(api.settings.max_body_bytes)
    name = next(iter(body)) if isinstance(body, dict) and len(body) == 1 else None
    if name not in ("addTenantAccess", "removeTenantAccess"):
        raise BadRequest("The body must be an object with one member: addTenantAccess or removeTenantAccess.")
    project_id = Fields(body[name], name, ("tenant",)).required_text("tenant")

    def write(tx: Tx) -> Response:
        if accounts.find_project(tx, id=project_id) is None:
            raise BadRequest(f"Project ID {project_id[:64]} is not a valid project.")
        row = flavors.get(tx, request.params["flavor"])
        if name == "removeTenantAccess":
            flavors.close_to(tx, row["id"], project_id)
        elif row["is_public"] and request.version >= PRIVATE_ONLY_SINCE:
            raise Conflict("Can not add access to a public flavor.")
        else:
            flavors.open_to(tx, row["id"], project_id)
        return _access(tx, row["id"])

    return await api.store.run(write)
