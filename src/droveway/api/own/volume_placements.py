"""Decisions where a volume shall lie, with their reasons; and dry runs.

GET  /droveway/v1/volume-placements/{volume}?all=  {"volume", "placements": [...]}: its newest decision, or every one
POST /droveway/v1/volume-placements/try            {"placement": {"size_gb", "type", "zone", "backend"}}: what would be
                                                   decided now; nothing is claimed
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of, plain_schema
from droveway.api.http.request import Request, Response, encode
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.volume.placement import VolumeRequest
from droveway.scheduler import backends as scheduler
from droveway.store.engine import lookup
from droveway.store.engine.transaction import Tx
from droveway.store.volume import backends, placements, types


async def show(api: Api, request: Request) -> Response:
    """Newest first. The volume may be named by its id or by its name."""
    given = request.known_query(("all",))
    everything = given.get("all") not in {None, "", "0", "false"}

    def read(tx: Tx) -> bytes:
        volume = lookup.volume(tx, request.params["volume_id"])
        rows = placements.of_volume(tx, volume["id"])
        if not rows:
            raise NotFound(f"No decision about volume {volume['id']} is kept: it was not placed yet, or long ago.")
        return encode(
            {
                "volume": {"id": volume["id"], "name": volume["name"], "backend": volume["host"]},
                "placements": [
                    scheduler.as_plain(row["body"], row["backend"]) | {"at_us": row["at_us"]}
                    for row in (rows if everything else rows[:1])
                ],
            }
        )

    return Response(200, await api.store.read(read))


class VolumeDryRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size_gb: int = 1
    type: str | None = None
    zone: str | None = None
    backend: str | None = None


def _trial(path: str, value: Any) -> VolumeDryRun:
    try:
        return msgspec.convert(value, VolumeDryRun)
    except msgspec.ValidationError as error:
        raise BadRequest(f"This is no request that can be tried: {error}.") from None


class VolumeDryRunBody(Body, frozen=True):
    placement: Annotated[VolumeDryRun, of(_trial, **plain_schema(VolumeDryRun))]


@takes(VolumeDryRunBody)
async def attempt(api: Api, request: Request, given: VolumeDryRunBody) -> Response:
    wanted = given.placement

    def read(tx: Tx) -> bytes:
        row = None if wanted.type is None else types.get(tx, wanted.type)
        of_type = backends.specs_of_type(tx, None if row is None else row["id"])
        ask = VolumeRequest(wanted.size_gb, of_type.name, dict(of_type.extra_specs), wanted.zone, wanted.backend)
        plan = scheduler.place(backends.facts_of_all(tx), ask, int(tx.names.uuid()[:8], 16))
        body = msgspec.to_builtins({"kind": "try", "ask": ask, "plan": plan, "races": ()})
        return encode({"placement": scheduler.as_plain(body, plan.ranked[0].name if plan.ranked else None)})

    return Response(200, await api.store.read(read))
