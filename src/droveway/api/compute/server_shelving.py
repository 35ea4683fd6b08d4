"""Shelve and unshelve; and what Nova knows and is not built here."""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.compute import server_create, server_snapshots
from droveway.api.compute.server_images import SNAPSHOT, new_image
from droveway.api.compute.server_intents import Params, intend
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import HOST, NAME, anything, or_null
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound
from droveway.domain.model import SagaKind, VmState
from droveway.domain.policy import Need
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow

ZONE_SINCE, HOST_SINCE = 77, 91
_UNSET = "\0"  # no zone


async def _shelve(api: Api, request: Request, value: Any) -> Response:
    image_id = api.names.uuid()

    def params(tx: Tx, row: InstanceRow) -> Params:
        if server_snapshots.begins_from_volume(tx, row):  # its disk is a volume, and stays one
            return {"image_id": "", "user_id": request.caller.user_id}
        name = f"{row['name'][:240]}-shelved"
        new_image(tx, api, row, request.caller.user_id, image_id, name, {"image_type": SNAPSHOT})
        return {"image_id": image_id, "user_id": request.caller.user_id}

    await intend(api, request, SagaKind.SHELVE, params)
    return Response(202)


class Unshelve(Body, frozen=True):
    """2.77: in that zone; 2.91: on that host, which administrators name, or in no zone any longer."""

    availability_zone: Annotated[str | None, NAME.since(ZONE_SINCE).until(90).needed(), or_null(NAME).since(91)] = (
        _UNSET
    )
    host: Annotated[str | None, HOST.since(HOST_SINCE)] = None


async def _unshelve(api: Api, request: Request, given: Unshelve | None) -> Response:
    asked = given if given is not None and request.version >= ZONE_SINCE else Unshelve()
    if asked.host is not None and not request.caller.is_admin:
        raise Forbidden("Naming the host of a server needs the role admin.")

    def params(tx: Tx, row: InstanceRow) -> Params:
        wanted: Params = {"user_id": request.caller.user_id}
        if asked == Unshelve():
            return wanted
        if row["vm_state"] == VmState.SHELVED and row["task_state"] is None:
            raise Conflict(
                f"Specifying a host or a zone when unshelving instance {row['id']} needs the state shelved_offloaded; "
                "it is shelved, and begins where it is"
            )
        if asked.host is not None:
            _check_host(tx, asked.host)
            wanted["requested_host"] = asked.host
        if asked.availability_zone != _UNSET:
            if asked.availability_zone is not None:
                server_create.check_zone(tx, asked.availability_zone)
            instances.set_(tx, row["id"], zone=asked.availability_zone)
        return wanted

    await intend(api, request, SagaKind.UNSHELVE, params)
    return Response(202)


def _check_host(tx: Tx, host: str) -> None:
    try:
        hosts.get(tx, host)
    except NotFound:
        raise BadRequest(f"Compute host {host} could not be found.") from None


# -- not built --------------------------------------------------------------------------------------------------------
def _unbuilt(verb: str, sentence: str) -> Any:
    async def perform(api: Api, request: Request, value: Any) -> Response:
        """Never written: the answer of a server in no state for it, which clients show their user."""

        def read(tx: Tx) -> None:
            row = instances.get(tx, request.params["server_id"], request.scope)
            raise Conflict(
                f"Cannot '{verb}' instance {row['id']} while it is in vm_state {row['vm_state']}: {sentence}"
            )

        await api.store.read(read)
        raise AssertionError("it was refused")

    return perform


_ANY = anything(description="Not looked at: it is refused.")
ACTIONS = {
    "shelve": Action(_shelve, _ANY, Need.MEMBER),
    "unshelve": Action(_unshelve, Unshelve, Need.MEMBER, may_be_null=True),
    "evacuate": Action(
        _unbuilt("evacuate", "servers are not rebuilt elsewhere yet; they start again when their host is back"),
        _ANY,
        Need.ADMIN,
    ),
}
