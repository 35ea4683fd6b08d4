"""Floating IPs: list, show, create, update, delete."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes, takes_several
from droveway.api.http.kinds import or_null
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import ADDRESS_OR_NULL, PROJECT, TAGS, TEXT, UUID, UUID_OR_NULL
from droveway.api.network.listing import STANDARD, Filter, Resource, as_null, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.network.refusals import BadFloatingipRequest
from droveway.store.engine.transaction import Tx
from droveway.store.network import floating
from droveway.store.network.floating import NewFloatingIp
from droveway.store.network.rows import FloatingIpRow

FLOATING_IPS = Resource(
    "floatingip",
    "floatingips",
    fields.FLOATING_IP,
    STANDARD
    | {
        "floating_network_id": Filter("floating_network_id"),
        "floating_ip_address": Filter("address"),
        "port_id": Filter("port_id", as_null),
        "fixed_ip_address": Filter("fixed_address", as_null),
        "router_id": Filter("router_id", as_null),
        "status": Filter("status"),
    },
    floating.find,
)


class NewFloatingIpBody(Body, frozen=True, kw_only=True):
    """An address outside, for a port or for later."""

    floating_network_id: Annotated[str, UUID]
    floating_ip_address: Annotated[str | None, ADDRESS_OR_NULL] = None
    subnet_id: Annotated[str | None, UUID_OR_NULL] = None
    port_id: Annotated[str | None, UUID_OR_NULL] = None
    fixed_ip_address: Annotated[str | None, ADDRESS_OR_NULL] = None
    description: Annotated[str | None, or_null(TEXT)] = None
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()


class ChangedFloatingIp(Body, frozen=True, kw_only=True):
    """`port_id` null: it leads nowhere from now on."""

    port_id: Annotated[str | UnsetType | None, UUID_OR_NULL] = UNSET
    fixed_ip_address: Annotated[str | None, ADDRESS_OR_NULL] = None
    description: Annotated[str | UnsetType, TEXT] = UNSET


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, FLOATING_IPS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, FLOATING_IPS, await api.store.read(floating.get, request.params["id"], request.scope))


@takes_several(NewFloatingIpBody, "floatingip", "floatingips")
async def create(api: Api, request: Request, given: Any) -> Response:
    several: list[NewFloatingIpBody] = given if isinstance(given, list) else [given]
    wanted = []
    for one in several:
        policy.only_admin(request, one, ("floating_ip_address",), "create_floatingip")
        _check_port(one.port_id, one.fixed_ip_address)
        wanted.append(
            NewFloatingIp(
                policy.project_of(request, one, "Floating IPs"),
                one.floating_network_id,
                one.description or "",
                one.tags,
                one.subnet_id,
                one.floating_ip_address,
                one.port_id,
                one.fixed_ip_address,
            )
        )

    def write(tx: Tx) -> list[FloatingIpRow]:
        return [floating.create(tx, one, api.settings.network.quotas, request.scope) for one in wanted]

    return made(request, FLOATING_IPS, await api.store.run(write), are_several=isinstance(given, list))


def _check_port(port_id: object, fixed: str | None) -> None:
    if fixed is not None and (port_id is None or port_id is UNSET):
        raise BadFloatingipRequest(
            "Bad floatingip request: fixed_ip_address cannot be specified without a port_id: say which port has it."
        )


@takes(ChangedFloatingIp, "floatingip")
async def update(api: Api, request: Request, given: ChangedFloatingIp) -> Response:
    port = None if isinstance(given.port_id, UnsetType) else (given.port_id, given.fixed_ip_address)
    _check_port(given.port_id, given.fixed_ip_address)
    changes: dict[str, Any] = {} if given.description is UNSET else {"description": given.description}
    changed = await api.store.run(floating.update, request.params["id"], changes, port, request.scope)
    return shown(request, FLOATING_IPS, changed)


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(floating.remove, request.params["id"], request.scope)
    return Response(204)
