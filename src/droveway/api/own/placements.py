"""Decisions where a guest shall run, with their reasons; requests that wait for room; dry runs.

GET  /droveway/v1/placements?limit=N              {"placements": [...]}: the newest of all servers, in short
GET  /droveway/v1/placements?blocked=1            {"waiting": [...]}: requests that wait: since when, why, until when
GET  /droveway/v1/placements/{server}?all=&host=  {"server", "waiting", "placements": [...]}: its newest decision, or
                                                  every kept one; with `host` what became of that host; `waiting` as
                                                  in the list, or null
POST /droveway/v1/placements/try                  {"placement": {"flavor", "image", "zone", "host", "group", "count",
                                                  "properties"}} or {"placement": {"server"}}: what would be decided
                                                  now; {"replay": server}: its newest decision again
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.http import paging
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of, plain_schema
from droveway.api.http.request import Request, Response, encode
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.ports.control import DryRunRequest
from droveway.scheduler import decisions
from droveway.store.compute import instances, placements
from droveway.store.engine import lookup
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import HostWithUse, PlacementRow, WaitingRow
from droveway.store.work import sagas

LIMIT = 1000


async def show(api: Api, request: Request) -> Response:
    """Newest first. The server may be named by its id or by its name."""
    given = request.known_query(("all", "host"))
    everything = _flag(given.get("all"))

    def read(tx: Tx) -> bytes:
        server = _server(tx, request.params["server_id"])
        rows = placements.of_instance(tx, server["id"], placements.KEPT_MAX if everything else 1)
        if not rows:
            raise NotFound(
                f"No decision about server {server['name']} is kept: it has not been placed yet, or long ago."
            )
        host = hosts.get(tx, given["host"]) if given.get("host") else None
        waits = sagas.waiting_for_room(tx, instance_id=server["id"], limit=1)
        return encode(
            {
                "server": server,
                "waiting": _wait(tx, waits[0]) if waits else None,
                "placements": [_as_plain(row, host) for row in rows],
            }
        )

    return Response(200, await api.store.read(read))


def _server(tx: Tx, given: str) -> dict[str, Any]:
    """Decisions outlive the row of a server that was deleted long ago."""
    try:
        row = lookup.server(tx, given)
    except NotFound:
        if not placements.of_instance(tx, given, 1):
            raise
        return {"id": given, "name": given, "host": None}
    return {"id": row["id"], "name": row["name"], "host": row["host"]}


def _as_plain(row: PlacementRow, host: HostWithUse | None) -> dict[str, Any]:
    decision = decisions.kept(row["body"])
    as_plain = decisions.as_plain(decision, row["host"]) | {"at_us": row["at_us"], "saga_id": row["saga_id"]}
    if host is not None:
        as_plain["of_host"] = decisions.of_host(decision.plan, host["id"], host["name"])
    return as_plain


async def listing(api: Api, request: Request) -> Response:
    given = request.known_query(("blocked", "limit"))
    limit = paging.newest(given, LIMIT)
    read = _waiting if _flag(given.get("blocked")) else _newest
    return Response(200, await api.store.read(read, limit))


def _newest(tx: Tx, limit: int) -> bytes:
    rows = placements.newest(tx, limit)
    names = instances.names(tx, {row["instance_id"] for row in rows})
    return encode({"placements": [_brief(row, names.get(row["instance_id"])) for row in rows]})


def _brief(row: PlacementRow, name: str | None) -> dict[str, Any]:
    decision = decisions.kept(row["body"])
    plan = decision.plan
    why = "" if row["host"] is not None else decisions.why_not(decision)
    return {
        "server_id": row["instance_id"],
        "name": name,
        "at_us": row["at_us"],
        "kind": decision.kind,
        "host": row["host"],
        "hosts": plan.hosts,
        "fitting": plan.fitting,
        "races": len(decision.races),
        "request": decisions.words(decision.ask),
        "reason": why,
    }


def _waiting(tx: Tx, limit: int) -> bytes:
    return encode({"waiting": [_wait(tx, row) for row in sagas.waiting_for_room(tx, limit=limit)]})


def _wait(tx: Tx, row: WaitingRow) -> dict[str, Any]:
    last = placements.of_instance(tx, row["subject_id"], 1)
    decision = decisions.kept(last[0]["body"]) if last else None
    since_us = int(row["params"].get("asked_at_us", row["created_at_us"]))
    until_us = None if decision is None else since_us + int(decision.settings.wait_for_capacity_s * 1_000_000)
    return {
        "server_id": row["subject_id"],
        "name": row["name"],
        "project_id": row["project_id"],
        "kind": row["kind"],
        "saga_id": row["id"],
        "since_us": since_us,
        "until_us": until_us,
        "request": None if decision is None else decisions.words(decision.ask),
        "reason": row["blocked"].partition(" waits for room: ")[2],
    }


def _trial(path: str, value: Any) -> DryRunRequest:
    if not isinstance(value, dict):
        raise BadRequest(f'{path} must be an object, such as {{"flavor": "small"}}.')
    try:
        return msgspec.convert(value, DryRunRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(f"This is no request that can be tried: {error}.") from None


def _server_name(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{path} must be the id or the name of a server.")
    return value


class DryRunBody(Body, frozen=True):
    """One of the two."""

    placement: Annotated[DryRunRequest | None, of(_trial, **plain_schema(DryRunRequest))] = None
    replay: Annotated[str | None, of(_server_name, type="string")] = None


@takes(DryRunBody)
async def attempt(api: Api, request: Request, given: DryRunBody) -> Response:
    """What would be decided now; or the newest decision about a server again."""
    if (given.placement is None) == (given.replay is None):
        raise BadRequest('The body must be {"placement": {...}} or {"replay": "a server"}.')
    if given.replay is not None:
        return Response(200, await api.control.replay_placement(given.replay))
    assert given.placement is not None, "one of the two is there"
    return Response(200, await api.control.try_placement(given.placement))


def _flag(given: str | None) -> bool:
    return given not in {None, "", "0", "false"}
