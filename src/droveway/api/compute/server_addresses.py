"""Actions on a server that change its ports and nothing of its guest: fixed and floating addresses, security groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from msgspec import field

from droveway.api.compute.server_attach import check_on
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import text
from droveway.api.http.request import Request, Response
from droveway.api.network.kinds import ADDRESS, UUID
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.policy import Need
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.network import choosing, floating, groups, networks, ports
from droveway.store.network.addressing import AddressRequest
from droveway.store.network.rows import FloatingIpRow, Port

ADDRESSES_UNTIL = 43  # microversions: since then clients ask Networking itself


class NetworkOf(Body, frozen=True, kw_only=True):
    """Where it gets one address more."""

    network_id: Annotated[str, UUID] = field(name="networkId")


class FixedAddress(Body, frozen=True, kw_only=True):
    """One that it has."""

    address: Annotated[str, ADDRESS]


class FloatingAddress(Body, frozen=True, kw_only=True):
    """One of the project, and the fixed one to which it is to lead."""

    address: Annotated[str, ADDRESS]
    fixed_address: Annotated[str, ADDRESS] = ""


class GroupNamed(Body, frozen=True, kw_only=True):
    """By name or id."""

    name: Annotated[str, text(255, 1)]


async def _with_ports(api: Api, request: Request, change: Callable[[Tx, str, list[Port]], None]) -> Response:
    """`change` gets the id of the project and the ports of the server, in the transaction that changes them."""
    check_on(api)

    def write(tx: Tx) -> None:
        server = instances.get(tx, request.params["server_id"], request.scope)
        found = [one.port for one in server_ports.of(tx, server["id"])]
        if not found:
            raise BadRequest(f"Instance {server['id']} has no interface: attach one first.")
        change(tx, server["project_id"], found)

    await api.store.run(write)
    return Response(202)


# -- fixed addresses --------------------------------------------------------------------------------------------------
def _as_it_has(port: Port) -> list[AddressRequest]:
    return [AddressRequest(subnet, address) for subnet, address in port["addresses"]]


async def _add_fixed(api: Api, request: Request, given: NetworkOf) -> Response:
    """Of the network's first subnet, on the first of its interfaces there."""

    def change(tx: Tx, project_id: str, found: list[Port]) -> None:
        port = next((one for one in found if one["network_id"] == given.network_id), None)
        if port is None:
            raise BadRequest(f"Network {given.network_id} is not one of the networks of this server: attach it first.")
        subnet_ids = networks.get(tx, given.network_id)["subnets"]
        if not subnet_ids:
            raise BadRequest(f"Network {given.network_id} has no subnet.")
        ports.update(tx, port, {}, [*_as_it_has(port), AddressRequest(subnet_ids[0])])

    return await _with_ports(api, request, change)


async def _remove_fixed(api: Api, request: Request, given: FixedAddress) -> Response:
    def change(tx: Tx, project_id: str, found: list[Port]) -> None:
        for port in found:
            kept = [one for one in _as_it_has(port) if one.address != given.address]
            if len(kept) < len(port["addresses"]):
                ports.update(tx, port, {}, kept)
                return
        raise BadRequest(f"Fixed IP {given.address} not found: no interface of this server has it.")

    return await _with_ports(api, request, change)


# -- floating addresses -----------------------------------------------------------------------------------------------
def _floating(tx: Tx, project_id: str, address: str) -> FloatingIpRow:
    row = floating.with_address(tx, project_id, address)
    if row is None:
        raise NotFound(f"floating IP not found: this project has none with the address {address}.")
    return row


async def _add_floating(api: Api, request: Request, given: FloatingAddress) -> Response:
    """Where no fixed address is named: the first of IPv4 on an interface that a router leads to."""

    def change(tx: Tx, project_id: str, found: list[Port]) -> None:
        row = _floating(tx, project_id, given.address)
        fixed = [
            (port["id"], address)
            for port in found
            for _, address in port["addresses"]
            if (address == given.fixed_address if given.fixed_address else ":" not in address)
        ]
        if not fixed:
            raise BadRequest("Unable to associate the floating IP: the server has no such fixed IP address.")
        refusals = []
        for port_id, address in fixed:
            try:
                floating.associate(tx, row, port_id, address, project_id)
            except (BadRequest, Conflict, NotFound) as fault:
                refusals.append(fault.reason)
            else:
                return
        raise BadRequest(f"Unable to associate floating IP {given.address}: {refusals[0]}")

    return await _with_ports(api, request, change)


async def _remove_floating(api: Api, request: Request, given: FloatingAddress) -> Response:
    def change(tx: Tx, project_id: str, found: list[Port]) -> None:
        row = _floating(tx, project_id, given.address)
        if row["port_id"] not in {port["id"] for port in found}:
            raise Conflict(f"Floating IP {given.address} is not associated with this server.")
        floating.update(tx, row["id"], {}, (None, None), project_id)

    return await _with_ports(api, request, change)


# -- security groups --------------------------------------------------------------------------------------------------
def _group(tx: Tx, project_id: str, name: str) -> str:
    found = choosing.groups_called(tx, project_id, name)
    if name == groups.DEFAULT and not found:
        return groups.default_of(tx, project_id)
    if not found:
        raise NotFound(f"Security group {name[:64]} is not found in project {project_id}.")
    if len(found) > 1 and name not in found:
        raise Conflict(f"Multiple security groups found matching '{name[:64]}'. Use an ID to be more specific.")
    return name if name in found else found[0]


async def _add_group(api: Api, request: Request, given: GroupNamed) -> Response:
    """To every interface whose ports are guarded at all."""

    def change(tx: Tx, project_id: str, found: list[Port]) -> None:
        group_id = _group(tx, project_id, given.name)
        guarded = [port for port in found if port["port_security"]]
        if not guarded:
            raise BadRequest("Security groups need port security, which no interface of this server has.")
        for port in guarded:
            if group_id not in port["groups"]:
                ports.update(tx, port, {}, None, [*port["groups"], group_id])

    return await _with_ports(api, request, change)


async def _remove_group(api: Api, request: Request, given: GroupNamed) -> Response:
    def change(tx: Tx, project_id: str, found: list[Port]) -> None:
        group_id = _group(tx, project_id, given.name)
        having = [port for port in found if group_id in port["groups"]]
        if not having:
            raise NotFound(f"Security group {given.name[:64]} is not associated with this server.")
        for port in having:
            ports.update(tx, port, {}, None, [one for one in port["groups"] if one != group_id])

    return await _with_ports(api, request, change)


ACTIONS = {
    "addFixedIp": Action(_add_fixed, NetworkOf, Need.MEMBER, ADDRESSES_UNTIL),
    "removeFixedIp": Action(_remove_fixed, FixedAddress, Need.MEMBER, ADDRESSES_UNTIL),
    "addFloatingIp": Action(_add_floating, FloatingAddress, Need.MEMBER, ADDRESSES_UNTIL),
    "removeFloatingIp": Action(_remove_floating, FloatingAddress, Need.MEMBER, ADDRESSES_UNTIL),
    "addSecurityGroup": Action(_add_group, GroupNamed, Need.MEMBER),
    "removeSecurityGroup": Action(_remove_group, GroupNamed, Need.MEMBER),
}
