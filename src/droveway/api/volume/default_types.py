"""The default type of a project, since 3.62: in place of the configuration's."""

from __future__ import annotations

from typing import Annotated

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import text
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.volume import types

SINCE = 62


class DefaultType(Body, frozen=True):
    volume_type: Annotated[str, text(255, 1)]


def _project(tx: Tx, request: Request) -> str:
    project_id = request.params["target"]
    if accounts.find_project(tx, id=project_id) is None:
        raise NotFound(f"Project with id {project_id[:64]} not found.")
    return project_id


@takes(DefaultType, "default_type")
async def set_(api: Api, request: Request, given: DefaultType) -> Response:
    def write(tx: Tx) -> dict[str, str]:
        project_id = _project(tx, request)
        try:
            row = types.get(tx, given.volume_type)
        except NotFound as fault:
            raise BadRequest(fault.reason) from None
        types.set_default(tx, project_id, row["id"])
        return {"project_id": project_id, "volume_type_id": row["id"]}

    return Response(200, {"default_type": await api.store.run(write)})


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, str]:
        project_id = _project(tx, request)
        type_id = types.default_of(tx, project_id)
        if type_id is None:
            raise NotFound(f"Default type for project {project_id} not found.")
        return {"project_id": project_id, "volume_type_id": type_id}

    return Response(200, {"default_type": await api.store.read(read)})


async def listing(api: Api, request: Request) -> Response:
    rows = await api.store.read(types.defaults)
    return Response(200, {"default_types": [{"project_id": one, "volume_type_id": of} for one, of in rows]})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(types.set_default, request.params["target"], None)
    return Response(204)
