"""Interfaces that a server gets and gives back: what was asked is checked and written, and the reply waits, so long and
no longer, for the saga that does it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.compute import server_access, server_nics
from droveway.api.compute.server_interfaces import interface
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import canonical, is_dashed_uuid
from droveway.api.network.kinds import UUID, as_address, as_list, as_object
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import SagaKind
from droveway.store.compute import instances, server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.network import networks, ports
from droveway.store.rows import InstanceRow

NO_NETWORKS = "There are no networks in this cloud: its configuration names no driver of [network]."
TAG_SINCE = 49


def _fixed_ips(path: str, value: Any) -> str:
    """A list of one."""
    if len(as_list(path, value)) != 1:
        raise BadRequest(f"Invalid input for {path}: it has one address.")
    given = as_object(f"{path}.0", value[0], "ip_address")
    if "ip_address" not in given:
        raise BadRequest(f"Invalid input for {path}.0: 'ip_address' is a required property.")
    return as_address(f"{path}.0.ip_address", given["ip_address"])


_ADDRESS_ITEM = {"type": "object", "properties": {"ip_address": {"type": "string"}}, "required": ["ip_address"]}


class NewInterface(Body, frozen=True, kw_only=True):
    """A port, or a network and perhaps an address there; nothing: the project's one network."""

    port_id: Annotated[str, UUID] = ""
    net_id: Annotated[str, UUID] = ""
    fixed_ips: Annotated[str, of(_fixed_ips, type="array", items=_ADDRESS_ITEM, minItems=1, maxItems=1)] = ""
    tag: Annotated[str | None, text(60, 1).since(TAG_SINCE)] = None


def check_on(api: Api) -> None:
    if not api.settings.network.is_on:
        raise BadRequest(NO_NETWORKS)


@takes(NewInterface, "interfaceAttachment")
async def create(api: Api, request: Request, given: NewInterface) -> Response:
    check_on(api)
    if given.port_id and given.net_id:
        raise BadRequest("Must not input both network_id and port_id")
    if given.fixed_ips and not given.net_id:
        raise BadRequest("Must input network_id when request IP address")
    made_id = "" if given.port_id else api.names.uuid()
    asked = NicRequest(given.port_id, given.net_id, given.fixed_ips, given.tag, made_id)

    def write(tx: Tx) -> str:
        server = server_access.changeable(tx, request)
        wanted = _checked(tx, api, request, asked, server)
        params = {"nic": msgspec.to_builtins(wanted)}
        return instances.intend(tx, server["id"], SagaKind.ATTACH_INTERFACE, params, request.id, request.caller.user_id)

    await _settled(api, await api.store.run(write), "attach")
    wanted_id = asked.port_id or made_id

    def read(tx: Tx) -> dict[str, Any]:
        server = server_access.visible(tx, request)
        for one in server_ports.of(tx, server["id"]):
            if one.port["id"] == wanted_id:
                return interface(one, request.version)
        raise Conflict(f"Port {wanted_id} was attached, and was detached or deleted meanwhile.")

    return Response(200, {"interfaceAttachment": await api.store.read(read)})


def _checked(tx: Tx, api: Api, request: Request, asked: NicRequest, server: InstanceRow) -> NicRequest:
    """As far as the rows say now; the saga looks again. Raises what is in the way."""
    if asked.port_id:
        port = ports.row_of(tx, asked.port_id, request.scope)
        if port["device_id"] == server["id"]:
            raise Conflict(f"Port {asked.port_id} is still in use: it is an interface of this server.")
        if request.scope not in (None, port["project_id"]):
            raise NotFound(f"Port {asked.port_id} could not be found: it is another project's.")
    elif asked.network_id:
        networks.row_of(tx, asked.network_id, request.scope)
    named = (asked,) if asked.port_id or asked.network_id else ()
    found = server_nics.resolved(tx, api, request, named, 1, server["project_id"])
    if not found:
        raise BadRequest("No network could be chosen: this project has none; name one with net_id.")
    return msgspec.structs.replace(asked, network_id=found[0].network_id)


async def delete(api: Api, request: Request) -> Response:
    check_on(api)
    port_id = request.params["port"]

    def write(tx: Tx) -> str:
        server = server_access.changeable(tx, request)
        named = canonical(port_id) if is_dashed_uuid(port_id) else port_id
        if named not in {one.port["id"] for one in server_ports.of(tx, server["id"])}:
            raise NotFound(f"Instance {server['id']} has no interface with the port {port_id[:64]}.")
        params = {"port_id": named}
        return instances.intend(tx, server["id"], SagaKind.DETACH_INTERFACE, params, request.id, request.caller.user_id)

    await _settled(api, await api.store.run(write), "detach")
    return Response(202)


async def _settled(api: Api, saga_id: str, what: str) -> None:
    """Raises Conflict with the reason when it has failed, and when it takes longer than a request waits."""
    done, reason = await api.sagas_settled(saga_id, api.settings.precheck_timeout_s)
    if not done:
        raise Conflict(f"Failed to {what} the interface: {reason}")
