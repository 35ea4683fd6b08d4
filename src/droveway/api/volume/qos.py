"""Quality of service: limits that types are given. `front-end`: the hypervisor holds them; `back-end`: the backend."""

from __future__ import annotations

from typing import Any

from droveway.api.http.bodies import takes_kind
from droveway.api.http.kinds import of
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag
from droveway.api.volume import fields, listing
from droveway.api.volume.here import links
from droveway.api.volume.kinds import REQUIRED_NAME, SPECS
from droveway.api.volume.listing import Filter, Listed
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.store.engine.transaction import Tx
from droveway.store.volume import listing as rows_of
from droveway.store.volume import qos, types
from droveway.store.volume.rows import VolumeQosRow
from droveway.store.volume.tables import volume_qos as table

CONSUMERS = ("back-end", "front-end", "both")
NAMES = ("name", "consumer")
LISTED = Listed(
    filters={"id": Filter("id"), "name": Filter("name"), "consumer": Filter("consumer")},
    sorts={"id": "id", "name": "name", "consumer": "consumer", "created_at": "created_at_us"},
)
Specs = dict[str, str]


async def listing_(api: Api, request: Request) -> Response:
    query = listing.read(api, request, LISTED)

    def read(tx: Tx) -> dict[str, Any]:
        rows = rows_of.find(tx, VolumeQosRow, table, rows_of.without_project(query.wanted, query.wanted.equal))
        shown = fields.QOS.render(rows, request.version, None)
        return listing.body(api, request, "qos_specs", shown, rows[-1]["id"] if rows else None, query, None)

    return Response(200, await api.store.read(read))


def _shown(api: Api, row: VolumeQosRow) -> dict[str, Any]:
    body = fields.QOS.renderer(0, is_admin=True)(row, None)
    return {"qos_specs": body, "links": links(api.settings.base_url, "qos-specs", row["id"])}


async def show(api: Api, request: Request) -> Response:
    return Response(200, _shown(api, await api.store.read(qos.get, request.params["qos_id"])))


def _new(path: str, value: Any) -> tuple[str, str, Specs]:
    """Its name, who holds it, and everything else, which is a limit."""
    if not isinstance(value, dict) or "name" not in value:
        raise BadRequest(f"Invalid input for {path}: 'name' is a required property.")
    name = REQUIRED_NAME.read(f"{path}.name", value["name"])
    consumer = _consumer(f"{path}.consumer", value.get("consumer") or CONSUMERS[0])
    return name, consumer, SPECS.read(path, {key: one for key, one in value.items() if key not in NAMES})


def _consumer(path: str, value: Any) -> str:
    if value not in CONSUMERS:
        raise BadRequest(f"Invalid qos specs: Valid consumer of QoS specs are: {', '.join(CONSUMERS)}; {path} is not.")
    return str(value)


@takes_kind(of(_new, type="object", required=["name"], additionalProperties={"type": ["string", "null"]}), "qos_specs")
async def create(api: Api, request: Request, given: tuple[str, str, Specs]) -> Response:
    return Response(200, _shown(api, await api.store.run(qos.create, *given)))


def _changes(path: str, value: Any) -> tuple[str | None, Specs]:
    specs = SPECS.read(path, value)
    consumer = specs.pop("consumer", None)
    return (None if consumer is None else _consumer(f"{path}.consumer", consumer)), specs


@takes_kind(of(_changes, **dict(SPECS.schema)), "qos_specs")
async def update(api: Api, request: Request, given: tuple[str | None, Specs]) -> Response:
    consumer, specs = given
    await api.store.run(qos.change, request.params["qos_id"], consumer, specs)
    return Response(200, {"qos_specs": specs | ({} if consumer is None else {"consumer": consumer})})


async def delete(api: Api, request: Request) -> Response:
    """`force`: also while types have it; then none has."""
    force = as_flag("force", dict(request.query).get("force", "false") or "false")
    await api.store.run(qos.remove, request.params["qos_id"], force=force)
    return Response(202)


def _keys(path: str, value: Any) -> list[str]:
    if not isinstance(value, list) or any(not isinstance(key, str) for key in value):
        raise BadRequest(f"Invalid input for {path}: it must be a list of keys.")
    return value


@takes_kind(of(_keys, type="array", items={"type": "string"}), "keys")
async def delete_keys(api: Api, request: Request, given: list[str]) -> Response:
    await api.store.run(qos.forget_keys, request.params["qos_id"], given)
    return Response(202)


# -- types that have it -----------------------------------------------------------------------------------------------
async def associations(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[dict[str, str]]:
        found = types.of_qos(tx, qos.get(tx, request.params["qos_id"])["id"])
        return [{"association_type": "volume_type", "name": row["name"], "id": row["id"]} for row in found]

    return Response(200, {"qos_associations": await api.store.read(read)})


def _type(request: Request) -> str:
    given = dict(request.query).get("vol_type_id")
    if not given:
        raise BadRequest("Volume Type id must not be None.")
    return given


async def associate(api: Api, request: Request) -> Response:
    """A GET that writes: so the API has it."""
    await api.store.run(qos.associate, request.params["qos_id"], _type(request))
    return Response(202)


async def disassociate(api: Api, request: Request) -> Response:
    await api.store.run(qos.disassociate, request.params["qos_id"], _type(request))
    return Response(202)


async def disassociate_all(api: Api, request: Request) -> Response:
    await api.store.run(qos.disassociate_all, request.params["qos_id"])
    return Response(202)
