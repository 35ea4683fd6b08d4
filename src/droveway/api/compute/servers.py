"""Servers: list, show, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from droveway.api.compute import fields, server_access, server_filters, server_intents
from droveway.api.compute.fields import View
from droveway.api.http import paging
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode
from droveway.api.wiring import Api
from droveway.store.compute import guest_data, instance_list, instances, server_locations, server_ports
from droveway.store.compute.instance_list import Filters
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow
from droveway.store.volume import attachments

USER_DATA_SINCE = 3


# -- show, delete -----------------------------------------------------------------------------------------------------
async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> bytes:
        row = server_access.visible(tx, request)
        render = fields.SERVER_SHOW.renderer(request.version, is_admin=request.caller.is_admin)
        return encode({"server": render(row, view_of(tx, api, request, [row]))})

    return Response(200, await api.answers.of(request, read))


def view_of(tx: Tx, api: Api, request: Request, rows: Sequence[Mapping[str, Any]]) -> View:
    """What details tell beside the rows, of which `id` and `host` are looked at."""
    shows_user_data = request.caller.is_admin and request.version >= USER_DATA_SINCE
    ids, has_networks = [row["id"] for row in rows], api.settings.network.is_on
    return View(
        api.settings.base_url,
        server_locations.of(tx, (row["host"] for row in rows)),
        user_data=guest_data.user_data_of(tx, ids) if shows_user_data else {},
        addresses=server_ports.addresses(tx, ids) if has_networks else {},
        group_names=server_ports.group_names(tx, ids) if has_networks else {},
        volumes=attachments.of_instances(tx, ids),
    )


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = server_access.changeable(tx, request)
        kind = server_intents.kind_of_deletion(api, row)
        instances.intend(tx, row["id"], kind, {}, request.id, request.caller.user_id)

    await api.store.run(write)
    return Response(204)


# -- list -------------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.SERVER)


async def detail(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.SERVER_DETAIL)


async def _list(api: Api, request: Request, table: FieldTable[InstanceRow]) -> Response:
    page = paging.asked(api, request)
    filters = server_filters.asked(request, page)
    if filters is None or not page.limit:
        return Response(200, {"servers": []})

    def read(tx: Tx) -> bytes:
        if table is fields.SERVER_DETAIL and instance_list.is_plain(filters):
            return encode(paging.listed(api, request, page, "servers", *_details(tx, api, request, filters)))
        rows = _find(tx, filters)
        view = view_of(tx, api, request, rows) if table is fields.SERVER_DETAIL else View(api.settings.base_url)
        items = table.render(rows, request.version, view, is_admin=request.caller.is_admin)
        return encode(paging.listed(api, request, page, "servers", items, rows))

    return Response(200, await api.answers.of(request, read))


def _details(tx: Tx, api: Api, request: Request, filters: Filters) -> tuple[list[msgspec.Raw], list[dict[str, str]]]:
    """What is told of each, and the row as far as a page needs it."""
    unread = instance_list.find_unread(tx, filters)
    id_at, host_at = unread.names.index("id"), unread.names.index("host")
    view = view_of(tx, api, request, [{"id": row[id_at], "host": row[host_at]} for row in unread.rows])
    version, is_admin = request.version, request.caller.is_admin
    render, asked = fields.SERVER_DETAIL.renderer(version, is_admin=is_admin), (version, is_admin, view.base)

    def body_of(row: tuple[Any, ...]) -> bytes:
        return encode(render(unread.read(row), view))

    found, ids = [], []
    for row in unread.rows:
        server_id = row[id_at]
        made_of = (asked, row, *view.beside(server_id, row[host_at]))
        found.append(msgspec.Raw(api.server_bodies.of(made_of, partial(body_of, row))))
        ids.append({"id": server_id})
    return found, ids


def _find(tx: Tx, filters: Filters) -> Sequence[InstanceRow]:
    if filters.marker is not None:
        with paging.marked(filters.marker):
            instances.get(tx, filters.marker, filters.project_id, deleted=True)
    return instance_list.find(tx, filters)
