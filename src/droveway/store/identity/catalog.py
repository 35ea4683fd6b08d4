"""Regions, services and endpoints: where clients find what there is. The program's own services are rows like others,
made at its start; they may be disabled, or told to be elsewhere, but not deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, delete, insert, select, update

from droveway.domain.faults import BadRequest, Conflict
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import new_id, there
from droveway.store.identity.rows import CatalogServiceRow, EndpointRow, RegionRow
from droveway.store.identity.tables import catalog_services, endpoints, regions

CHANGED = "catalog"  # the nudge of every write of it
BASE_URL = "$(base_url)s"  # in the URL of an endpoint: where the API that tells it is reached
INTERFACES = ("public", "internal", "admin")


def seed(tx: Tx, served: Sequence[tuple[str, str, str]], region: str) -> None:
    """The program's own services are these: (type, name, path). What it does not serve is advertised no longer."""
    if find_region(tx, region) is None:
        tx.execute(insert(regions).values(id=region, description=""))
    held = {row["type"]: row["id"] for row in list_services(tx, is_own=True)}
    for kind, name, path in served:
        if kind not in held:
            service_id = _own_id(f"service {kind}")
            own = {"id": service_id, "type": kind, "name": name, "enabled": True, "is_own": True}
            tx.execute(insert(catalog_services).values(own))
            for interface in INTERFACES:
                place = {"id": _own_id(f"endpoint {kind} {interface}"), "interface": interface, "region_id": region}
                row = place | {"service_id": service_id, "url": BASE_URL + path, "enabled": True}
                tx.execute(insert(endpoints).values(row))
    ours = select(catalog_services.c.id).where(catalog_services.c.is_own)
    moved = endpoints.c.service_id.in_(ours) & endpoints.c.url.startswith(BASE_URL, autoescape=True)
    tx.execute(update(endpoints).where(moved).values(region_id=region))
    for kind, service_id in held.items():
        if kind not in {one for one, _, _ in served}:
            _forget_service(tx, service_id)
    tx.nudges.append(CHANGED)


def _own_id(of: str) -> str:
    """The same from start to start, and in every cloud."""
    return hashlib.sha256(of.encode()).hexdigest()[:32]


# -- regions ----------------------------------------------------------------------------------------------------------
def find_region(tx: Tx, region_id: str) -> RegionRow | None:
    return results.first(RegionRow, tx.execute(select(regions).where(regions.c.id == region_id)))


def list_regions(tx: Tx, /, **filters: Any) -> list[RegionRow]:
    return results.every(RegionRow, tx.execute(select(regions).filter_by(**filters).order_by(regions.c.id)))


def put_region(tx: Tx, region_id: str | None, values: Mapping[str, Any], *, is_new: bool) -> str:
    """Made when `is_new`, else changed. Raises Conflict, NotFound, BadRequest when it would stand in itself."""
    known = find_region(tx, region_id) if region_id else None
    if is_new and known is not None:
        raise Conflict(f"There is a region {region_id} already.")
    if not is_new:
        there(known, "region", region_id or "")
    parent, seen = values.get("parent_id"), {region_id}
    while parent is not None:
        if parent in seen:
            raise BadRequest(f"The region {region_id} would stand in itself.")
        seen.add(parent)
        parent = there(find_region(tx, parent), "region", parent)["parent_id"]
    if is_new:
        region_id = region_id or new_id(tx)
        tx.execute(insert(regions).values(id=region_id, **values))
    elif values:
        tx.execute(update(regions).where(regions.c.id == region_id).values(**values))
    tx.nudges.append(CHANGED)
    assert region_id is not None, "it was made up"
    return region_id


def remove_region(tx: Tx, region_id: str) -> None:
    """Raises Conflict while something is in it."""
    there(find_region(tx, region_id), "region", region_id)
    if list_regions(tx, parent_id=region_id):
        raise Conflict(f"The region {region_id} has others in it; delete them first.")
    if list_endpoints(tx, region_id=region_id):
        raise Conflict(f"The region {region_id} has endpoints; delete them first.")
    tx.execute(delete(regions).where(regions.c.id == region_id))
    tx.nudges.append(CHANGED)


# -- services ---------------------------------------------------------------------------------------------------------
def find_service(tx: Tx, service_id: str) -> CatalogServiceRow | None:
    query = select(catalog_services).where(catalog_services.c.id == service_id)
    return results.first(CatalogServiceRow, tx.execute(query))


def list_services(tx: Tx, /, **filters: Any) -> list[CatalogServiceRow]:
    query = select(catalog_services).filter_by(**filters).order_by(catalog_services.c.type, catalog_services.c.id)
    return results.every(CatalogServiceRow, tx.execute(query))


def add_service(tx: Tx, values: Mapping[str, Any]) -> str:
    return _add(tx, catalog_services, {**values, "is_own": False})


def _add(tx: Tx, table: Table, values: Mapping[str, Any]) -> str:
    made = new_id(tx)
    tx.execute(insert(table).values(id=made, **values))
    tx.nudges.append(CHANGED)
    return made


def update_service(tx: Tx, service_id: str, values: Mapping[str, Any]) -> None:
    row = there(find_service(tx, service_id), "service", service_id)
    if row["is_own"] and values.get("type", row["type"]) != row["type"]:
        raise Conflict(f"The service {row['name']} is the program's own: what type it is of stays.")
    if values:
        tx.execute(update(catalog_services).where(catalog_services.c.id == service_id).values(**values))
    tx.nudges.append(CHANGED)


def remove_service(tx: Tx, service_id: str) -> None:
    """With its endpoints. Raises Conflict for one of the program's own."""
    row = there(find_service(tx, service_id), "service", service_id)
    if row["is_own"]:
        raise Conflict(
            f"The service {row['name']} is the program's own, which would make it again at its next start; "
            "disable it instead."
        )
    _forget_service(tx, service_id)
    tx.nudges.append(CHANGED)


def _forget_service(tx: Tx, service_id: str) -> None:
    tx.execute(delete(endpoints).where(endpoints.c.service_id == service_id))
    tx.execute(delete(catalog_services).where(catalog_services.c.id == service_id))


# -- endpoints --------------------------------------------------------------------------------------------------------
def find_endpoint(tx: Tx, endpoint_id: str) -> EndpointRow | None:
    return results.first(EndpointRow, tx.execute(select(endpoints).where(endpoints.c.id == endpoint_id)))


def list_endpoints(tx: Tx, /, **filters: Any) -> list[EndpointRow]:
    query = select(endpoints).filter_by(**filters).order_by(endpoints.c.service_id, endpoints.c.id)
    return results.every(EndpointRow, tx.execute(query))


def add_endpoint(tx: Tx, values: Mapping[str, Any]) -> str:
    _must_be(tx, values)
    return _add(tx, endpoints, values)


def _must_be(tx: Tx, values: Mapping[str, Any]) -> None:
    """Raises BadRequest naming what there is none of."""
    if "service_id" in values and find_service(tx, values["service_id"]) is None:
        raise BadRequest(f"There is no service {values['service_id'][:64]}.")
    if values.get("region_id") is not None and find_region(tx, values["region_id"]) is None:
        raise BadRequest(f"There is no region {values['region_id'][:64]}.")


def update_endpoint(tx: Tx, endpoint_id: str, values: Mapping[str, Any]) -> None:
    there(find_endpoint(tx, endpoint_id), "endpoint", endpoint_id)
    _must_be(tx, values)
    if values:
        tx.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))
    tx.nudges.append(CHANGED)


def remove_endpoint(tx: Tx, endpoint_id: str) -> None:
    row = there(find_endpoint(tx, endpoint_id), "endpoint", endpoint_id)
    service = there(find_service(tx, row["service_id"]), "service", row["service_id"])
    if service["is_own"] and row["url"].startswith(BASE_URL):
        raise Conflict(f"That endpoint is the program's own, of its service {service['name']}; disable it instead.")
    tx.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))
    tx.nudges.append(CHANGED)


def advertised(tx: Tx) -> list[tuple[CatalogServiceRow, list[EndpointRow]]]:
    """The enabled ones, each service with its endpoints."""
    of: dict[str, list[EndpointRow]] = {}
    for row in list_endpoints(tx, enabled=True):
        of.setdefault(row["service_id"], []).append(row)
    return [(row, of.get(row["id"], [])) for row in list_services(tx, enabled=True)]
