"""Volumes and snapshots that lie on a backend and have no row: what they are, and how they get one.

What a backend has of ours bears the name that we gave it, `volume-ID` and `snapshot-ID`: an unmanaged volume keeps its
name, and is managed again under its old id. Bytes of another origin are taken in by an image, or by a copy within the
guest: their format would have to be guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import anything, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_integer
from droveway.api.volume import volumes as shown_volumes
from droveway.api.volume.fields import SNAPSHOT_MADE, VOLUME_MADE
from droveway.api.volume.kinds import BACKEND, FLAG_OR_NULL, METADATA_OR_NULL, TEXT, UUID
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.model import StoredVolume
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import adopting, types, volumes
from droveway.store.volume.adopting import AdoptedVolume
from droveway.store.volume.rows import SnapshotRow, VolumeRow

GIB = 1 << 30
CLUSTERS_SINCE = 16
_NAME = re.compile(r"(?:volume-|snapshot-)?([0-9a-f-]{36})")
Item = dict[str, Any]


# -- what there is ----------------------------------------------------------------------------------------------------
def _backend(request: Request) -> str:
    host = dict(request.query).get("host")
    if not host:
        raise BadRequest("Either 'host' or 'cluster' must be specified: host=HOST@BACKEND.")
    return str(BACKEND.read("host", host))


async def _stored(api: Api, backend: str) -> list[StoredVolume]:
    """Raises BadRequest where there is no such backend, Unreachable."""
    if not await api.store.read(services.list_all, backend, VOLUME):
        raise BadRequest(f"Invalid host: No available service named '{backend[:64]}'.")
    return await api.control.list_stored_volumes(backend)


async def list_volumes(api: Api, request: Request) -> Response:
    return await _listed(api, request, "manageable-volumes", _volume_items, is_detailed=False)


async def detail_volumes(api: Api, request: Request) -> Response:
    return await _listed(api, request, "manageable-volumes", _volume_items, is_detailed=True)


async def list_snapshots(api: Api, request: Request) -> Response:
    return await _listed(api, request, "manageable-snapshots", _snapshot_items, is_detailed=False)


async def detail_snapshots(api: Api, request: Request) -> Response:
    return await _listed(api, request, "manageable-snapshots", _snapshot_items, is_detailed=True)


async def _listed(api: Api, request: Request, name: str, items_of: Any, *, is_detailed: bool) -> Response:
    stored = await _stored(api, _backend(request))
    items: list[Item] = await api.store.read(items_of, stored)
    page = _page(request, items, api.settings.page_max)
    if not is_detailed:
        page = [{key: one[key] for key in _BRIEF if key in one} for one in page]
    return Response(200, {name: page})


_BRIEF = ("reference", "size", "safe_to_manage", "source_reference")


def _volume_items(tx: Tx, stored: Iterable[StoredVolume]) -> list[Item]:
    known = adopting.known_volumes(tx, [one.volume_id for one in stored])
    return [_volume_item(one, is_known=one.volume_id in known) for one in stored]


def _volume_item(one: StoredVolume, *, is_known: bool) -> Item:
    reason = "already managed" if is_known else f"open at {', '.join(one.holders)}" if one.holders else None
    return {
        "reference": {"source-name": f"volume-{one.volume_id}"},
        "size": -(-one.size_bytes // GIB),
        "safe_to_manage": reason is None,
        "reason_not_safe": reason,
        "cinder_id": one.volume_id if is_known else None,
        "extra_info": None,
    }


def _snapshot_items(tx: Tx, stored: Iterable[StoredVolume]) -> list[Item]:
    all_of = [(one, snapshot_id) for one in stored for snapshot_id in one.snapshots]
    known = adopting.known_snapshots(tx, [snapshot_id for _, snapshot_id in all_of])
    managed = adopting.known_volumes(tx, [one.volume_id for one, _ in all_of])
    found = []
    for one, snapshot_id in all_of:
        reason = "already managed" if snapshot_id in known else None
        if one.volume_id not in managed:
            reason = "its volume is not managed"
        found.append(
            {
                "reference": {"source-name": f"snapshot-{snapshot_id}"},
                "size": -(-one.size_bytes // GIB),
                "safe_to_manage": reason is None,
                "source_reference": {"source-name": f"volume-{one.volume_id}"},
                "reason_not_safe": reason,
                "cinder_id": snapshot_id if snapshot_id in known else None,
                "extra_info": None,
            }
        )
    return found


def _page(request: Request, items: list[Item], most: int) -> list[Item]:
    """Sorted by `reference` or `size`, from `offset` on."""
    given = dict(request.query)
    key, _, way = given.get("sort", "reference:asc").partition(":")
    if key not in ("reference", "size") or way not in ("", "asc", "desc"):
        raise BadRequest("Invalid sort keys passed: such lists are sorted by reference or size, asc or desc.")
    value = (lambda one: one["size"]) if key == "size" else (lambda one: one["reference"]["source-name"])
    items = sorted(items, key=value, reverse=way == "desc")
    offset = as_integer("offset", given.get("offset", 0), 0)
    return items[offset : offset + min(as_integer("limit", given.get("limit", most), 0), most)]


# -- one gets a row ---------------------------------------------------------------------------------------------------
def _id_of(path: str, ref: Any) -> str:
    """Of {"source-name": "volume-ID"} or {"source-id": "ID"}, or either alone."""
    named = next(iter(ref.values()), "") if isinstance(ref, dict) and len(ref) == 1 else ref
    found = _NAME.fullmatch(named) if isinstance(named, str) else None
    if found is None:
        raise BadRequest(
            f"Invalid input for {path}: what lies on a backend is called {{'source-name': 'volume-ID'}}, as "
            "the list of what is manageable shows it."
        )
    return found[1]


class ManagedVolume(Body, frozen=True):
    ref: Annotated[Any, anything(type=["object", "string"])]
    host: Annotated[str | None, or_null(BACKEND)] = None
    name: Annotated[str | None, TEXT] = None
    description: Annotated[str | None, TEXT] = None
    volume_type: Annotated[str | None, or_null(text(255))] = None
    availability_zone: Annotated[str | None, or_null(text(255))] = None
    bootable: Annotated[bool | None, FLAG_OR_NULL] = None
    metadata: Annotated[dict[str, str] | None, METADATA_OR_NULL] = None
    cluster: Annotated[str | None, or_null(text(255)).since(CLUSTERS_SINCE)] = None


@takes(ManagedVolume, "volume")
async def manage_volume(api: Api, request: Request, given: ManagedVolume) -> Response:
    if given.host is None:
        raise BadRequest("Invalid input for volume: 'host' is a required property: HOST@BACKEND.")
    backend, volume_id = given.host, _id_of("volume.ref", given.ref)
    one = next((one for one in await _stored(api, backend) if one.volume_id == volume_id), None)
    if one is None:
        raise NotFound(f"Invalid reference: there is no volume-{volume_id} on {backend}.")
    if one.holders:
        raise BadRequest(f"Invalid volume: volume-{volume_id} is open at {', '.join(one.holders)}.")

    def write(tx: Tx) -> dict[str, Any]:
        if given.volume_type:
            volume_type = types.get(tx, given.volume_type)
        else:
            volume_type = types.default(tx, request.caller.project_id, api.settings.volumes.default_type)
        (service,) = services.list_all(tx, backend, VOLUME)
        adopted = AdoptedVolume(
            id=volume_id,
            project_id=request.caller.project_id or "",
            user_id=request.caller.user_id,
            size_gb=-(-one.size_bytes // GIB),
            backend=backend,
            zone=service["zone"],
            volume_type=(volume_type["id"], volume_type["name"]),
            name=given.name,
            description=given.description,
            bootable=bool(given.bootable),
            metadata=given.metadata or {},
        )
        row: VolumeRow = adopting.adopt_volume(tx, adopted, api.settings.volumes.quotas)
        return shown_volumes.shown(tx, api, request, row, VOLUME_MADE)

    return Response(202, await api.store.run(write))


class ManagedSnapshot(Body, frozen=True):
    volume_id: Annotated[str, UUID]
    ref: Annotated[Any, anything(type=["object", "string", "null"])]
    name: Annotated[str | None, TEXT] = None
    description: Annotated[str | None, TEXT] = None
    metadata: Annotated[dict[str, str] | None, METADATA_OR_NULL] = None


@takes(ManagedSnapshot, "snapshot")
async def manage_snapshot(api: Api, request: Request, given: ManagedSnapshot) -> Response:
    snapshot_id = _id_of("snapshot.ref", given.ref)
    volume = await api.store.read(volumes.get, given.volume_id, request.scope)
    stored = await _stored(api, volume["host"] or "")
    if not any(one.volume_id == volume["id"] and snapshot_id in one.snapshots for one in stored):
        raise NotFound(f"Invalid reference: there is no snapshot-{snapshot_id} of volume {volume['id']}.")

    def write(tx: Tx) -> SnapshotRow:
        row = volumes.get(tx, volume["id"])
        texts = given.name, given.description
        return adopting.adopt_snapshot(tx, row, snapshot_id, texts, given.metadata or {}, api.settings.volumes.quotas)

    row = await api.store.run(write)
    render = SNAPSHOT_MADE.renderer(request.version, is_admin=True)
    return Response(202, {"snapshot": render(row, None)})
