"""`/os-simple-tenant-usage`: how many hours, and how much, the servers of a project were there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from droveway.api.http import paging
from droveway.api.http.render import micros
from droveway.api.http.request import Request, Response, encode
from droveway.api.http.validate import as_time_us
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.store.compute import usage
from droveway.store.engine.transaction import Tx
from droveway.store.rows import UsageRow

PAGED_SINCE = 40
HOUR_US = 3_600_000_000
Usage = dict[str, Any]


async def listing(api: Api, request: Request) -> Response:
    """Of all projects; their servers one by one with `detailed=1`."""
    known = ("start", "end", "detailed", *(("limit", "marker") if request.version >= PAGED_SINCE else ()))
    given = request.known_query(known)
    return await _answer(api, request, "tenant_usages", None, detailed=given.get("detailed") == "1")


async def show(api: Api, request: Request) -> Response:
    """Of one project, with its servers."""
    project_id = request.project_of(request.params["project_id"], "The usage", is_many=False)
    request.known_query(("start", "end", *(("limit", "marker") if request.version >= PAGED_SINCE else ())))
    return await _answer(api, request, "tenant_usage", project_id, detailed=True)


async def _answer(api: Api, request: Request, name: str, project_id: str | None, *, detailed: bool) -> Response:
    now_us = api.clock.now_us()
    since_us, until_us = _span(request, now_us)
    paged = request.version >= PAGED_SINCE
    page = paging.asked(api, request) if paged else paging.whole(0)

    def read(tx: Tx) -> bytes:
        with paging.marked(page.marker):
            rows = usage.between(
                tx, since_us, until_us, project_id=project_id, marker=page.marker, limit=page.limit if paged else None
            )
        found = _sums(rows, since_us, until_us, now_us, detailed=detailed)
        items = found if project_id is None else found[0] if found else {}
        return encode(paging.listed(api, request, page, name, items, rows))

    return Response(200, await api.store.read(read))


def _span(request: Request, now_us: int) -> tuple[int, int]:
    given = dict(request.query)
    since_us = as_time_us("start", given["start"]) if given.get("start") else now_us - 1
    until_us = as_time_us("end", given["end"]) if given.get("end") else now_us
    if since_us >= until_us:
        raise BadRequest("Invalid start time. The start time cannot occur after the end time.")
    return since_us, min(until_us, now_us)


def _sums(rows: Iterable[UsageRow], since_us: int, until_us: int, now_us: int, *, detailed: bool) -> list[Usage]:
    found: dict[str, Usage] = {}
    for row in rows:
        one = _server(row, since_us, until_us, now_us)
        total = found.get(row["project_id"])
        if total is None:
            total = found[row["project_id"]] = {
                "tenant_id": row["project_id"],
                "start": micros(since_us),
                "stop": micros(until_us),
                "total_hours": 0.0,
                "total_vcpus_usage": 0.0,
                "total_memory_mb_usage": 0.0,
                "total_local_gb_usage": 0.0,
                **({"server_usages": []} if detailed else {}),
            }
        total["total_hours"] += one["hours"]
        for name in ("vcpus", "memory_mb", "local_gb"):
            total[f"total_{name}_usage"] += one["hours"] * one[name]
        if detailed:
            total["server_usages"].append(one)
    return list(found.values())


def _server(row: UsageRow, since_us: int, until_us: int, now_us: int) -> Usage:
    began_us, ended_us = row["launched_at_us"], row["terminated_at_us"]
    stop_us = until_us if ended_us is None else min(until_us, ended_us)
    return {
        "instance_id": row["id"],
        "name": row["name"],
        "tenant_id": row["project_id"],
        "flavor": row["flavor"]["name"],
        "vcpus": row["vcpus"],
        "memory_mb": row["ram_mb"],
        "local_gb": row["flavor"]["disk_gb"] + row["flavor"].get("ephemeral_gb", 0),
        "hours": max(0, stop_us - max(began_us, since_us)) / HOUR_US,
        "started_at": micros(began_us),
        "ended_at": micros(ended_us),
        "state": row["vm_state"] if ended_us is None else "terminated",
        "uptime": ((now_us if ended_us is None else ended_us) - began_us) // 1_000_000,
    }
