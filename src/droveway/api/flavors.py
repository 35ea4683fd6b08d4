"""Flavors: list, show, create, delete."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import RowMapping

from droveway.api import fields, paging
from droveway.api.fields import View
from droveway.api.render import FieldTable
from droveway.api.request import Request, Response
from droveway.api.validate import Fields, as_flag, as_integer, as_text, the
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.model import Flavor
from droveway.store import flavors
from droveway.store.transaction import Tx

_ID = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")
_QUERY = ("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
_BODY = ("name", "id", "ram", "vcpus", "disk", "OS-FLV-EXT-DATA:ephemeral", "swap", "rxtx_factor",
         "os-flavor-access:is_public")  # fmt: skip
DESCRIPTION_MAX = 65535
FACTOR_MAX = 3.40282e38


async def listing(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.FLAVOR)


async def detail(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.FLAVOR_DETAIL)


async def _list(api: Api, request: Request, table: FieldTable) -> Response:
    given = request.known_query(_QUERY)
    page = paging.asked(api, request)
    sort_key, sort_dir = given.get("sort_key", "flavorid"), given.get("sort_dir", "asc")
    if sort_key not in flavors.SORTABLE or sort_dir not in ("asc", "desc"):
        raise BadRequest(f"Flavors cannot be sorted by {sort_key[:40]} {sort_dir[:40]}.")

    def read(tx: Tx) -> list[RowMapping]:
        try:
            rows = flavors.find(
                tx,
                is_public=_is_public(request, given),
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
    row = await api.store.read(flavors.get, request.params["flavor"], sees_all=request.caller.is_admin)
    return _one(api, request, row)


def _one(api: Api, request: Request, row: RowMapping) -> Response:
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


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(flavors.remove, request.params["flavor"])
    return Response(202)
