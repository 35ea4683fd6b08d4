"""The catalog: regions, services and their endpoints as rows, and what a token is told of them.

GET, POST             /v3/regions, /v3/services, /v3/endpoints
GET, PATCH, DELETE    /v3/regions/{id}, /v3/services/{id}, /v3/endpoints/{id}; PUT /v3/regions/{id} makes one of that id
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, of, one_of, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_text
from droveway.api.identity.resources import (
    DESCRIPTION,
    ID,
    Flag,
    Shown,
    as_list,
    filters,
    link,
    values_of,
)
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, catalog
from droveway.store.identity.rows import CatalogServiceRow, EndpointRow, RegionRow

URL_MAX = 2048
FILLED = ("project_id", "tenant_id")  # in a URL, as $(project_id)s or %(project_id)s


# -- what a token is told ---------------------------------------------------------------------------------------------
async def of_token(api: Api, project_id: str | None) -> list[Shown]:
    """Where each service is. An endpoint that asks for a project is told to those alone who have one."""
    return [
        {
            "id": service["id"],
            "type": service["type"],
            "name": service["name"],
            "endpoints": [
                {
                    "id": row["id"],
                    "interface": row["interface"],
                    "region": row["region_id"],
                    "region_id": row["region_id"],
                    "url": url,
                }
                for row in endpoints
                if (url := _filled(api, row["url"], project_id)) is not None
            ],
        }
        for service, endpoints in await api.catalog()
    ]


def _filled(api: Api, url: str, project_id: str | None) -> str | None:
    url = url.replace(catalog.BASE_URL, api.settings.base_url)
    for name in FILLED:
        for form in (f"$({name})s", f"%({name})s"):
            if form in url:
                if project_id is None:
                    return None
                url = url.replace(form, project_id)
    return url


# -- regions ----------------------------------------------------------------------------------------------------------
def _region(api: Api, row: RegionRow) -> Shown:
    return {
        "id": row["id"],
        "description": row["description"],
        "parent_region_id": row["parent_id"],
        "links": {"self": link(api, f"regions/{row['id']}")},
    }


REGION_ID = text(255)


class NewRegion(Body, frozen=True):
    id: Annotated[str | None, or_null(text(255, 1))] = None
    description: Annotated[str | None, DESCRIPTION] = ""
    parent_region_id: Annotated[str | None, or_null(REGION_ID)] = None


class ChangedRegion(Body, frozen=True):
    id: Annotated[str | UnsetType, REGION_ID] = UNSET  # clients send it, too
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET
    parent_region_id: Annotated[str | UnsetType | None, or_null(REGION_ID)] = UNSET


def _region_values(given: Body) -> dict[str, Any]:
    values = values_of(given, "id")
    if "parent_region_id" in values:
        values["parent_id"] = values.pop("parent_region_id")
    return values


def _found_region(tx: Tx, region_id: str) -> RegionRow:
    return accounts.there(catalog.find_region(tx, region_id), "region", region_id)


async def list_regions(api: Api, request: Request) -> Response:
    given = filters(request, ("parent_region_id",))
    by = {"parent_id": given["parent_region_id"]} if given else {}
    rows = await api.store.read(catalog.list_regions, **by)
    return as_list(api, request, "regions", [_region(api, row) for row in rows])


async def show_region(api: Api, request: Request) -> Response:
    return Response(200, {"region": _region(api, await api.store.read(_found_region, request.params["id"]))})


async def _put_region(api: Api, region_id: str | None, values: dict[str, Any], *, is_new: bool) -> Shown:
    def write(tx: Tx) -> RegionRow:
        return _found_region(tx, catalog.put_region(tx, region_id, values, is_new=is_new))

    return {"region": _region(api, await api.store.run(write))}


@takes(NewRegion, "region")
async def create_region(api: Api, request: Request, given: NewRegion) -> Response:
    return Response(201, await _put_region(api, given.id, _region_values(given), is_new=True))


@takes(NewRegion, "region")
async def create_named_region(api: Api, request: Request, given: NewRegion) -> Response:
    region_id = request.params["id"]
    if given.id not in (None, region_id):
        raise BadRequest(f"Invalid input for region.id: it differs from that of the path, {region_id[:64]}.")
    return Response(201, await _put_region(api, region_id, _region_values(given), is_new=True))


@takes(ChangedRegion, "region")
async def update_region(api: Api, request: Request, given: ChangedRegion) -> Response:
    return Response(200, await _put_region(api, request.params["id"], _region_values(given), is_new=False))


async def delete_region(api: Api, request: Request) -> Response:
    await api.store.run(catalog.remove_region, request.params["id"])
    return Response(204)


# -- services ---------------------------------------------------------------------------------------------------------
def _service(api: Api, row: CatalogServiceRow) -> Shown:
    body: Shown = {
        "id": row["id"],
        "type": row["type"],
        "name": row["name"],
        "enabled": row["enabled"],
        "links": {"self": link(api, f"services/{row['id']}")},
    }
    return body if row["description"] is None else body | {"description": row["description"]}


_TYPE, _SERVICE_NAME = text(255, 1), text()


class NewService(Body, frozen=True):
    type: Annotated[str, _TYPE]
    name: Annotated[str, _SERVICE_NAME] = ""
    description: Annotated[str | None, DESCRIPTION] = None
    enabled: Annotated[bool, FLAG] = True


class ChangedService(Body, frozen=True):
    id: Annotated[str | UnsetType, ID] = UNSET  # clients send it, too
    type: Annotated[str | UnsetType, _TYPE] = UNSET
    name: Annotated[str | UnsetType, _SERVICE_NAME] = UNSET
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET
    enabled: Flag = UNSET


def _found_service(tx: Tx, service_id: str) -> CatalogServiceRow:
    return accounts.there(catalog.find_service(tx, service_id), "service", service_id)


async def list_services(api: Api, request: Request) -> Response:
    rows = await api.store.read(catalog.list_services, **filters(request, ("name", "type")))
    return as_list(api, request, "services", [_service(api, row) for row in rows])


async def show_service(api: Api, request: Request) -> Response:
    return Response(200, {"service": _service(api, await api.store.read(_found_service, request.params["id"]))})


@takes(NewService, "service")
async def create_service(api: Api, request: Request, given: NewService) -> Response:
    values = values_of(given, "description") | {"description": given.description}
    row = await api.store.run(lambda tx: _found_service(tx, catalog.add_service(tx, values)))
    return Response(201, {"service": _service(api, row)})


@takes(ChangedService, "service")
async def update_service(api: Api, request: Request, given: ChangedService) -> Response:
    def write(tx: Tx) -> CatalogServiceRow:
        catalog.update_service(tx, request.params["id"], values_of(given, "id"))
        return _found_service(tx, request.params["id"])

    return Response(200, {"service": _service(api, await api.store.run(write))})


async def delete_service(api: Api, request: Request) -> Response:
    await api.store.run(catalog.remove_service, request.params["id"])
    return Response(204)


# -- endpoints --------------------------------------------------------------------------------------------------------
def _endpoint(api: Api, row: EndpointRow) -> Shown:
    return {
        "id": row["id"],
        "service_id": row["service_id"],
        "interface": row["interface"],
        "region": row["region_id"],
        "region_id": row["region_id"],
        "url": row["url"].replace(catalog.BASE_URL, api.settings.base_url),
        "enabled": row["enabled"],
        "links": {"self": link(api, f"endpoints/{row['id']}")},
    }


def _url(path: str, value: Any) -> str:
    url = as_text(path, value, URL_MAX, 1)
    if any(character.isspace() or not character.isprintable() for character in url):
        raise BadRequest(f"Invalid input for {path}: a URL has no spaces, and nothing that is not printed.")
    if _SCHEME.match(url) is None:
        raise BadRequest(f"Invalid input for {path}: a URL begins with its scheme, such as https:.")
    return url


_SCHEME = re.compile(r"[a-zA-Z0-9+.-]+:.")
URL = of(_url, type="string", minLength=1, maxLength=URL_MAX, pattern=r"^[a-zA-Z0-9+.-]+:[^\s]+$")
INTERFACE = one_of(catalog.INTERFACES)


class NewEndpoint(Body, frozen=True):
    service_id: Annotated[str, ID]
    interface: Annotated[str, INTERFACE]
    url: Annotated[str, URL]
    region_id: Annotated[str | None, or_null(REGION_ID)] = None
    region: Annotated[str | None, or_null(REGION_ID)] = None  # what clients called it before
    enabled: Annotated[bool, FLAG] = True
    name: Annotated[str | None, or_null(text())] = None  # clients send it; an endpoint has none


class ChangedEndpoint(Body, frozen=True):
    id: Annotated[str | UnsetType, ID] = UNSET  # clients send it, too
    service_id: Annotated[str | UnsetType, ID] = UNSET
    interface: Annotated[str | UnsetType, INTERFACE] = UNSET
    url: Annotated[str | UnsetType, URL] = UNSET
    region_id: Annotated[str | UnsetType | None, or_null(REGION_ID)] = UNSET
    region: Annotated[str | UnsetType | None, or_null(REGION_ID)] = UNSET
    enabled: Flag = UNSET
    name: Annotated[str | UnsetType | None, or_null(text())] = UNSET


def _endpoint_values(given: NewEndpoint | ChangedEndpoint) -> dict[str, Any]:
    values = values_of(given, "id", "name", "region")
    return values | {"region_id": given.region} if isinstance(given.region, str) else values


def _found_endpoint(tx: Tx, endpoint_id: str) -> EndpointRow:
    return accounts.there(catalog.find_endpoint(tx, endpoint_id), "endpoint", endpoint_id)


async def list_endpoints(api: Api, request: Request) -> Response:
    rows = await api.store.read(
        catalog.list_endpoints, **filters(request, ("enabled", "interface", "region_id", "service_id"))
    )
    return as_list(api, request, "endpoints", [_endpoint(api, row) for row in rows])


async def show_endpoint(api: Api, request: Request) -> Response:
    return Response(200, {"endpoint": _endpoint(api, await api.store.read(_found_endpoint, request.params["id"]))})


@takes(NewEndpoint, "endpoint")
async def create_endpoint(api: Api, request: Request, given: NewEndpoint) -> Response:
    values = _endpoint_values(given)
    row = await api.store.run(lambda tx: _found_endpoint(tx, catalog.add_endpoint(tx, values)))
    return Response(201, {"endpoint": _endpoint(api, row)})


@takes(ChangedEndpoint, "endpoint")
async def update_endpoint(api: Api, request: Request, given: ChangedEndpoint) -> Response:
    def write(tx: Tx) -> EndpointRow:
        catalog.update_endpoint(tx, request.params["id"], _endpoint_values(given))
        return _found_endpoint(tx, request.params["id"])

    return Response(200, {"endpoint": _endpoint(api, await api.store.run(write))})


async def delete_endpoint(api: Api, request: Request) -> Response:
    await api.store.run(catalog.remove_endpoint, request.params["id"])
    return Response(204)
