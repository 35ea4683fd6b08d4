"""Version documents: what a client reads before it knows anything."""

from __future__ import annotations

from typing import Any

from droveway.api.http.faults import PLACEMENT
from droveway.api.http.microversions import MAXIMUM_TEXT, MINIMUM_TEXT, SERIES
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api

# Services in the catalog: (type, name, path). What is not built is not advertised.
SERVICES = (
    ("compute", "nova", "/compute/v2.1"),
    ("identity", "keystone", "/identity"),
    ("image", "glance", "/image"),
    ("placement", "placement", "/placement"),
    ("block-storage", "cinder", "/volume/v3"),
    ("volumev3", "cinderv3", "/volume/v3"),  # what clients called it before
)
NETWORK_SERVICE = ("network", "neutron", "/network")  # where it is on
IMAGE_VERSION = "v2.0"
_UPDATED = "2026-11-20T00:00:00Z"


def services(api: Api) -> tuple[tuple[str, str, str], ...]:
    """Those of this cloud."""
    return served(with_network=api.settings.network.is_on)


def served(*, with_network: bool) -> tuple[tuple[str, str, str], ...]:
    return (*SERVICES, NETWORK_SERVICE) if with_network else SERVICES


async def root(api: Api, request: Request) -> Response:
    base = api.settings.base_url
    return Response(200, {"services": [{"type": kind, "url": base + path} for kind, _, path in services(api)]})


# -- identity ---------------------------------------------------------------------------------------------------------
def _identity_version(base: str) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{base}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


async def identity_versions(api: Api, request: Request) -> Response:
    base = api.settings.base_url
    location = [(b"location", f"{base}/identity/v3/".encode())]
    return Response(300, {"versions": {"values": [_identity_version(base)]}}, headers=location)


async def identity_version(api: Api, request: Request) -> Response:
    return Response(200, {"version": _identity_version(api.settings.base_url)})


# -- compute ----------------------------------------------------------------------------------------------------------
def _compute_version(base: str) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": MAXIMUM_TEXT,
        "min_version": MINIMUM_TEXT,
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{base}/compute/v2.1/"}],
    }


async def compute_versions(api: Api, request: Request) -> Response:
    return Response(200, {"versions": [_compute_version(api.settings.base_url)]})


async def compute_version(api: Api, request: Request) -> Response:
    media = [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]
    return Response(200, {"version": {**_compute_version(api.settings.base_url), "media-types": media}})


# -- placement --------------------------------------------------------------------------------------------------------
async def placement_version(api: Api, request: Request) -> Response:
    series = SERIES[PLACEMENT]
    request.version = series.asked(request)  # clients try here whether a version is spoken
    version = {
        "id": "v1.0",
        "min_version": series.minimum_text,
        "max_version": series.maximum_text,
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }
    return Response(200, {"versions": [version]}, headers=series.echo(request.version).copy())


# -- image ------------------------------------------------------------------------------------------------------------
def _image_versions(base: str) -> dict[str, Any]:
    link = {"rel": "self", "href": f"{base}/image/v2/"}
    return {"versions": [{"id": IMAGE_VERSION, "status": "CURRENT", "links": [link]}]}


async def image_versions(api: Api, request: Request) -> Response:
    return Response(300, _image_versions(api.settings.base_url))


async def image_versions_list(api: Api, request: Request) -> Response:
    return Response(200, _image_versions(api.settings.base_url))
