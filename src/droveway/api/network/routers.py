"""Routers: list, show, create, update, delete; a subnet or a port is added, or removed."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType, field

from droveway.api.http.bodies import Body, given_in, takes, takes_several
from droveway.api.http.kinds import of
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import FIXED_IPS, FLAG, NOTHING, PROJECT, ROUTES, TAGS, TEXT, UUID, as_object, as_uuid
from droveway.api.network.listing import FLAG as FLAG_FILTER
from droveway.api.network.listing import NAMED, Filter, Resource, as_null, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.network.refusals import BadRouterRequest, InvalidInput
from droveway.store.engine.transaction import Tx
from droveway.store.network import routers
from droveway.store.network.routers import Gateway, NewRouter
from droveway.store.network.rows import Router, RouterRow

ROUTERS = Resource(
    "router",
    "routers",
    fields.ROUTER,
    NAMED
    | {
        "admin_state_up": Filter("admin_state_up", FLAG_FILTER),
        "external_network_id": Filter("external_network_id", as_null),
    },
    routers.find,
)


def _gateway(path: str, value: Any) -> Gateway | None:
    """Null, or an empty object, is no gateway."""
    if value is None or value == {}:
        return None
    given = as_object(path, value, "network_id", "enable_snat", "external_fixed_ips", "qos_policy_id")
    if given.get("qos_policy_id") is not None:
        raise InvalidInput(f"Invalid input for {path}. Reason: there are no QoS policies here: leave it out.")
    if "network_id" not in given:
        raise InvalidInput(f"Invalid input for {path}. Reason: it needs a network_id.")
    fixed = given.get("external_fixed_ips")
    return Gateway(
        as_uuid(f"{path}.network_id", given["network_id"]),
        FLAG.read(f"{path}.enable_snat", given["enable_snat"]) if "enable_snat" in given else None,
        FIXED_IPS.read(f"{path}.external_fixed_ips", fixed) if fixed else None,
    )


GATEWAY = of(_gateway, anyOf=[{"type": "null"}, {"type": "object"}])


class _Common(Body, frozen=True, kw_only=True):
    name: Annotated[str | UnsetType, TEXT] = UNSET
    description: Annotated[str | UnsetType, TEXT] = UNSET
    admin_state_up: Annotated[bool | UnsetType, FLAG] = UNSET
    gateway: Annotated[Gateway | UnsetType | None, GATEWAY] = field(default=UNSET, name="external_gateway_info")


class NewRouterBody(_Common, frozen=True, kw_only=True):
    """A router."""

    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()
    availability_zone_hints: Annotated[None, NOTHING] = None


class ChangedRouter(_Common, frozen=True, kw_only=True):
    """What is there of it."""

    routes: Annotated[tuple[tuple[str, str], ...] | UnsetType, ROUTES] = UNSET


class Interface(Body, frozen=True, kw_only=True):
    """One of both."""

    subnet_id: Annotated[str | UnsetType, UUID] = UNSET
    port_id: Annotated[str | UnsetType, UUID] = UNSET


def _check_outside(request: Request, gateway: Gateway | UnsetType | None, action: str) -> None:
    """Which address it has outside, and whether it translates, is an administrator's to say."""
    if isinstance(gateway, Gateway) and not request.caller.is_admin:
        if gateway.enable_snat is not None:
            policy.refuse(action, "external_gateway_info:enable_snat")
        if gateway.fixed_ips is not None:
            policy.refuse(action, "external_gateway_info:external_fixed_ips")


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, ROUTERS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, ROUTERS, await api.store.read(routers.get, request.params["id"], request.scope))


@takes_several(NewRouterBody, "router", "routers")
async def create(api: Api, request: Request, given: Any) -> Response:
    several: list[NewRouterBody] = given if isinstance(given, list) else [given]
    wanted = []
    for one in several:
        _check_outside(request, one.gateway, "create_router")
        wanted.append(
            NewRouter(
                policy.project_of(request, one, "Routers"),
                one.name or "",
                one.description or "",
                one.tags,
                one.admin_state_up is not False,
                None if isinstance(one.gateway, UnsetType) else one.gateway,
            )
        )

    def write(tx: Tx) -> list[Router]:
        return [routers.create(tx, one, api.settings.network.quotas, request.scope) for one in wanted]

    return made(request, ROUTERS, await api.store.run(write), are_several=isinstance(given, list))


@takes(ChangedRouter, "router")
async def update(api: Api, request: Request, given: ChangedRouter) -> Response:
    _check_outside(request, given.gateway, "update_router")
    changes = {name: value for name, value in given_in(given).items() if name != "external_gateway_info"}

    def write(tx: Tx) -> Router:
        row = routers.row_of(tx, request.params["id"], request.scope)
        if given.gateway is None:
            routers.clear_gateway(tx, row)
        elif isinstance(given.gateway, Gateway):
            routers.set_gateway(tx, row, given.gateway, request.scope)
        if changes:
            routers.update(tx, row["id"], changes)
        return routers.get(tx, row["id"])

    return shown(request, ROUTERS, await api.store.run(write))


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        routers.remove(tx, routers.row_of(tx, request.params["id"], request.scope)["id"])

    await api.store.run(write)
    return Response(204)


# -- interfaces -------------------------------------------------------------------------------------------------------
def _interface_body(row: RouterRow, network_id: str, port_id: str, subnet_id: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "project_id": row["project_id"],
        "tenant_id": row["project_id"],
        "network_id": network_id,
        "port_id": port_id,
        "subnet_id": subnet_id,
        "subnet_ids": [subnet_id],
        "tags": row["tags"],
    }


@takes(Interface)
async def add_interface(api: Api, request: Request, given: Interface) -> Response:
    wanted = given_in(given)
    if len(wanted) != 1:
        raise BadRouterRequest(
            "Bad router request: "
            + (
                "Cannot specify both subnet-id and port-id."
                if wanted
                else "Either subnet_id or port_id must be specified."
            )
        )

    def write(tx: Tx) -> dict[str, Any]:
        row = routers.row_of(tx, request.params["id"], request.scope)
        port, subnet_id = routers.add_interface(tx, row["id"], wanted, api.settings.network.quotas, request.scope)
        return _interface_body(row, port["network_id"], port["id"], subnet_id)

    return Response(200, await api.store.run(write))


@takes(Interface)
async def remove_interface(api: Api, request: Request, given: Interface) -> Response:
    wanted = given_in(given)
    if not wanted:
        raise BadRouterRequest("Bad router request: Either subnet_id or port_id must be specified.")

    def write(tx: Tx) -> dict[str, Any]:
        gone, row = routers.remove_interface(tx, request.params["id"], wanted, request.scope)
        return _interface_body(row, gone.network_id, gone.port_id, gone.subnet_id)

    return Response(200, await api.store.run(write))
