"""Block storage's list of services: the rows of those kinds that it shows (domain/service_kinds.py)."""

from __future__ import annotations

from typing import Any

from droveway.api.compute.os_services import shown_by
from droveway.api.http.render import micros
from droveway.api.http.request import Request, Response
from droveway.api.volume.volume import answer
from droveway.api.wiring import Api
from droveway.domain.service_kinds import ListedBy
from droveway.store.fleet import services
from droveway.store.rows import ServiceRow


async def listing(api: Api, request: Request) -> Response:
    given = dict(request.query)
    wanted = given.get("host") or None, given.get("binary") or None
    rows = await api.store.read(services.list_all, *wanted)
    return answer(request, {"services": [_service(row) for row in shown_by(ListedBy.VOLUME, rows)]})


def _service(row: ServiceRow) -> dict[str, Any]:
    return {
        "binary": row["binary"],
        "host": row["host"],
        "zone": row["zone"],
        "status": "disabled" if row["disabled"] else "enabled",
        "state": "up" if row["is_up"] and not row["forced_down"] else "down",
        "updated_at": micros(row["updated_at_us"]),
        "disabled_reason": row["disabled_reason"],
    }
