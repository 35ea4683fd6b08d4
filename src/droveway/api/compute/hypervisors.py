"""Hypervisors: what each host offers and holds. Hosts that have never reported are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from droveway.api.compute import hypervisor_fields as fields
from droveway.api.compute.hypervisor_fields import Hosts
from droveway.api.http import paging
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.http.validate import as_flag, as_host, canonical, is_uuid
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.resources import LastReport
from droveway.store.compute import server_locations
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, root_pools
from droveway.store.rows import HostWithUse

Rows = Sequence[HostWithUse]
Servers = dict[str, list[dict[str, str]]] | None
Read = tuple[Rows, Servers]


def _reported(tx: Tx) -> list[HostWithUse]:
    return [row for row in hosts.each(tx) if row["resources"]]


def _read(tx: Tx, choose: Callable[[list[HostWithUse]], Rows], with_servers: bool) -> Read:
    rows = choose(_reported(tx))
    return rows, server_locations.servers_on(tx, (row["name"] for row in rows)) if with_servers else None


def _matching(rows: list[HostWithUse], pattern: str) -> Rows:
    found = [row for row in rows if pattern in fields.resources_of(row)["hypervisor_hostname"]]
    if not found:
        raise NotFound(f"No hypervisor matching '{pattern[:64]}' could be found.")
    return found


def _bodies(
    api: Api,
    request: Request,
    table: FieldTable[HostWithUse],
    read: Read,
    last_reports: dict[str, LastReport] | None = None,
) -> Iterator[dict[str, Any]]:
    rows, servers = read
    render = table.renderer(request.version, is_admin=True)
    view = _view(api, last_reports or {}, servers, request.version)
    return (render(row, view) for row in rows)


def _view(api: Api, last_reports: dict[str, LastReport], servers: Servers = None, version: int = 1) -> Hosts:
    kept = api.settings.placement
    return Hosts(
        api.settings.base_url,
        servers=servers,
        version=version,
        last_reports=last_reports,
        now_us=api.clock.now_us(),
        reserved_memory_mb=kept.reserved_memory_mb,
        reserved_disk_gb=kept.reserved_disk_gb,
    )


# -- lists ------------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.HYPERVISOR)


async def detail(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.HYPERVISOR_DETAIL)


async def _list(api: Api, request: Request, table: FieldTable[HostWithUse]) -> Response:
    """Paged since 2.33; by name pattern and with servers since 2.53."""
    version = request.version
    known = [
        *(("limit", "marker") if version >= 33 else ()),
        *(("hypervisor_hostname_pattern", "with_servers") if version >= 53 else ()),
    ]
    given = _strict(request, known)
    pattern = given.get("hypervisor_hostname_pattern")
    with_servers = as_flag("with_servers", given.get("with_servers", False))
    if pattern is not None:
        as_host("hypervisor_hostname_pattern", pattern)
        if "limit" in given or "marker" in given:
            raise BadRequest(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
            )
    paged = "limit" in given or "marker" in given
    page = paging.asked(api, request) if paged else paging.whole(0)

    def choose(rows: list[HostWithUse]) -> Rows:
        if pattern is not None:
            return _matching(rows, pattern)
        return _page_of(rows, page, version) if paged else rows

    last_reports = {} if table is fields.HYPERVISOR else await api.last_reports(())

    def read(tx: Tx) -> bytes:
        found = _read(tx, choose, with_servers)
        items = encode_each(_bodies(api, request, table, found, last_reports))
        key = "uuid" if version >= 53 else "id"
        return encode(paging.listed(api, request, page, "hypervisors", items, found[0], key=key))

    return Response(200, await api.store.read(read))


def _id_of(row: HostWithUse, version: int) -> str:
    return row["uuid"] if version >= 53 else str(row["id"])


def _page_of(rows: list[HostWithUse], page: paging.Page, version: int) -> Rows:
    start = 0
    if page.marker is not None:
        ids = [_id_of(row, version) for row in rows]
        if page.marker not in ids:
            raise paging.no_such(page.marker)
        start = ids.index(page.marker) + 1
    return rows[start : start + page.limit]


def _strict(request: Request, known: Sequence[str]) -> dict[str, str]:
    """Here unknown keys have been refused since 2.53, not only since 2.75."""
    return request.known_query(known, refuses_unknown=request.version >= 53)


# -- one --------------------------------------------------------------------------------------------------------------
def _choose_one(request: Request) -> Callable[[list[HostWithUse]], Rows]:
    wanted, version = request.params["hypervisor"], request.version
    if version >= 53 and not is_uuid(wanted):
        raise BadRequest(f"Invalid uuid {wanted[:64]}")
    wanted = canonical(wanted) if version >= 53 else wanted

    def choose(rows: list[HostWithUse]) -> Rows:
        found = [row for row in rows if _id_of(row, version) == wanted]
        if not found:
            raise NotFound(f"Hypervisor with ID '{wanted[:64]}' could not be found.")
        return found

    return choose


async def show(api: Api, request: Request) -> Response:
    given = _strict(request, ("with_servers",) if request.version >= 53 else ())
    with_servers = as_flag("with_servers", given.get("with_servers", False))
    read = await api.store.read(_read, _choose_one(request), with_servers)
    return Response(200, {"hypervisor": await _one(api, request, fields.HYPERVISOR_DETAIL, read)})


async def _one(api: Api, request: Request, table: FieldTable[HostWithUse], read: Read) -> dict[str, Any]:
    return next(_bodies(api, request, table, read, await api.last_reports((read[0][0]["name"],))))


async def uptime(api: Api, request: Request) -> Response:
    """Up to 2.87. Of a host that is down, or has not said it lately: null."""
    read = await api.store.read(_read, _choose_one(request), False)
    return Response(200, {"hypervisor": await _one(api, request, fields.HYPERVISOR_UPTIME, read)})


async def search(api: Api, request: Request) -> Response:
    """Up to 2.52: by a part of the name."""
    return await _search(api, request, with_servers=False)


async def servers(api: Api, request: Request) -> Response:
    """Up to 2.52: by a part of the name, with the servers of each."""
    return await _search(api, request, with_servers=True)


async def _search(api: Api, request: Request, *, with_servers: bool) -> Response:
    pattern = request.params["hypervisor"]

    def read(tx: Tx) -> bytes:
        found = _read(tx, lambda rows: _matching(rows, pattern), with_servers)
        return encode({"hypervisors": encode_each(_bodies(api, request, fields.HYPERVISOR, found))})

    return Response(200, await api.store.read(read))


async def statistics(api: Api, request: Request) -> Response:
    """Up to 2.87: the sums over the hosts whose service is enabled; a pool of Ceph that several use counts once."""
    view = _view(api, await api.last_reports(()))
    render = fields.HYPERVISOR_DETAIL.renderer(1, is_admin=True)

    def read(tx: Tx) -> dict[str, int]:
        sums: dict[str, int] = {"count": 0, **dict.fromkeys(fields.STATISTICS, 0)}
        counted = set[str]()
        for row in hosts.each(tx):
            if row["resources"] and not row["disabled"]:
                body = render(row, view)
                sums["count"] += 1
                pool = root_pools.of_host(row)
                for name in fields.STATISTICS:
                    if pool not in counted or name not in fields.OF_DISKS:
                        sums[name] += int(body[name] or 0)
                counted |= {pool} - {""}
        return sums

    return Response(200, {"hypervisor_statistics": await api.store.read(read)})
