"""Block Storage's documents of versions."""

from __future__ import annotations

from typing import Any

from droveway.api.http.faults import VOLUME
from droveway.api.http.microversions import SERIES
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api

_UPDATED = "2026-11-20T00:00:00Z"


def _versions(base: str) -> dict[str, Any]:
    series = SERIES[VOLUME]
    version = {
        "id": "v3.0",
        "status": "CURRENT",
        "version": series.maximum_text,
        "min_version": series.minimum_text,
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{base}/volume/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }
    return {"versions": [version]}


async def versions(api: Api, request: Request) -> Response:
    return Response(300, _versions(api.settings.base_url))


async def version(api: Api, request: Request) -> Response:
    return Response(200, _versions(api.settings.base_url))
