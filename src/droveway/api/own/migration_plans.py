"""Could a server move, where to, and what would it take; and what was foreseen of earlier migrations.

POST /droveway/v1/migrations/plan         {"migration": {"server", "host", "block_migration", "disk_over_commit",
                                          "measure"}}: {"server": {id, name, host}, "checks": [{name, passed, reason}],
                                          "load": {memory_bytes, used_bytes, dirty_bytes_per_s, measured_ago_s} or
                                          null, "way": {bytes_per_s, setup_s, downtime_s, learnt_from}, "mode",
                                          "hosts": [{host, verdict, blockers, checks, shares_store, copy_bytes,
                                          "predictions": [{mode, duration_s, downtime_s}]}], "more"}
GET  /droveway/v1/migrations/matrix       ?host=H: the servers there, or all: {"servers", "hosts", "pairs":
                                          [{server_id, host, verdict, blocker, reason}], "more_servers", "more_hosts"}
GET  /droveway/v1/migrations/predictions  ?limit=N: {"predictions": [{saga_id, server_id, name, source, destination,
                                          mode, bytes, dirty_bytes_per_s, learnt_from, predicted_ms,
                                          predicted_downtime_ms, outcome, duration_ms, downtime_ms, error_percent,
                                          at_us}], "median_error_percent"}

GET  /droveway/v1/aggregates/{name}/cpu-baseline
                                          {"aggregate", "model", "vendor", "features", "without", "cpu_xml", "asked",
                                          "reason", "hosts": [{host, model, runs, reason}]}

Both dry runs claim nothing and leave no file. A verdict is `moves`, `blocked`, `unknown` (a host did not answer), or
`does not end` (nothing stands in its way, but its guest writes faster than it is copied).
"""

from __future__ import annotations

from statistics import median
from typing import Annotated, Any

import msgspec

from droveway.api.http import paging
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of, plain_schema
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.ports.control import MoveRequest
from droveway.store.compute import predictions
from droveway.store.rows import PredictionWithName

LIMIT = 1000


def _request(path: str, value: Any) -> MoveRequest:
    if not isinstance(value, dict):
        raise BadRequest(f'{path} must be an object, such as {{"server": "web-1"}}.')
    try:
        found = msgspec.convert(value, MoveRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(f"This is no migration that can be tried: {error}.") from None
    if isinstance(found.block_migration, str) and found.block_migration != "auto":
        raise BadRequest(f"{path}.block_migration must be true, false or auto.")
    return found


class MovePlanBody(Body, frozen=True):
    migration: Annotated[MoveRequest, of(_request, **plain_schema(MoveRequest))]


@takes(MovePlanBody)
async def plan(api: Api, request: Request, given: MovePlanBody) -> Response:
    """The dry run of a live migration: each check with its answer, and what it would take."""
    return Response(200, msgspec.to_builtins(await api.control.plan_move(given.migration)))


async def matrix(api: Api, request: Request) -> Response:
    """Which servers could move to which hosts."""
    given = request.known_query(("host",))
    return Response(200, msgspec.to_builtins(await api.control.move_matrix(given.get("host") or None)))


async def cpu_baseline(api: Api, request: Request) -> Response:
    """The CPU that every host of that aggregate can run."""
    request.known_query(())
    return Response(200, msgspec.to_builtins(await api.control.cpu_baseline(request.params["name"])))


async def foreseen(api: Api, request: Request) -> Response:
    """What was foreseen of the newest migrations, beside how they were."""
    limit = paging.newest(request.known_query(("limit",)), LIMIT)
    rows = await api.store.read(predictions.newest, limit)
    shown = [_as_plain(row) for row in rows]
    errors = [abs(one["error_percent"]) for one in shown if one["error_percent"] is not None]
    return Response(200, {"predictions": shown, "median_error_percent": round(median(errors), 1) if errors else None})


def _as_plain(row: PredictionWithName) -> dict[str, Any]:
    found: dict[str, Any] = {**row, "server_id": row["instance_id"], "name": row["instance_name"]}
    del found["instance_id"], found["instance_name"]
    predicted, was = row["predicted_ms"], row["duration_ms"]
    is_known = row["outcome"] == predictions.COMPLETED and predicted is not None and was
    found["error_percent"] = round(100 * (predicted - was) / was, 1) if is_known and predicted and was else None
    return found
