"""What a server has of networks, as compute shows it: its addresses, its interfaces, its security groups."""

from __future__ import annotations

from typing import Any

from droveway.api.compute.fields import View, plain_addresses
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.store.compute import instances, server_ports
from droveway.store.compute.server_ports import ServerPort
from droveway.store.engine.transaction import Tx
from droveway.store.network import groups
from droveway.store.network.rows import Group, RuleRow

TAGS_SINCE = 70
INGRESS = "ingress"


def _server(tx: Tx, request: Request) -> str:
    return str(instances.get(tx, request.params["server_id"], request.scope)["id"])


# -- addresses --------------------------------------------------------------------------------------------------------
def _addresses(tx: Tx, request: Request) -> dict[str, list[dict[str, Any]]]:
    server_id = _server(tx, request)
    return plain_addresses(server_id, View("", addresses=server_ports.addresses(tx, [server_id])))


async def list_addresses(api: Api, request: Request) -> Response:
    return Response(200, {"addresses": await api.store.read(_addresses, request)})


async def show_addresses(api: Api, request: Request) -> Response:
    found = await api.store.read(_addresses, request)
    network = request.params["network"]
    if network not in found:
        raise NotFound(f"Network {network[:64]} could not be found: the server has no address there.")
    return Response(200, {network: found[network]})


# -- interfaces -------------------------------------------------------------------------------------------------------
def interface(one: ServerPort, version: int) -> dict[str, Any]:
    port = one.port
    body: dict[str, Any] = {
        "port_id": port["id"],
        "net_id": port["network_id"],
        "mac_addr": port["mac"],
        "port_state": port["status"],
        "fixed_ips": [{"subnet_id": subnet, "ip_address": address} for subnet, address in port["addresses"]],
    }
    return body | ({"tag": one.tag} if version >= TAGS_SINCE else {})


async def listing(api: Api, request: Request) -> Response:
    request.known_query(())

    def read(tx: Tx) -> list[dict[str, Any]]:
        return [interface(one, request.version) for one in server_ports.of(tx, _server(tx, request))]

    return Response(200, {"interfaceAttachments": await api.store.read(read)})


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, Any]:
        server_id, port_id = _server(tx, request), request.params["port"]
        for one in server_ports.of(tx, server_id):
            if one.port["id"] == port_id:
                return interface(one, request.version)
        raise NotFound(f"Instance {server_id} has no interface with the port {port_id[:64]}.")

    return Response(200, {"interfaceAttachment": await api.store.read(read)})


# -- security groups --------------------------------------------------------------------------------------------------
async def list_groups(api: Api, request: Request) -> Response:
    request.known_query(())

    def read(tx: Tx) -> list[dict[str, Any]]:
        there = [one.port for one in server_ports.of(tx, _server(tx, request))]
        ids = sorted({group_id for port in there for group_id in port["groups"]})
        found = [groups.get(tx, group_id) for group_id in ids]
        names = {group["id"]: group for group in found}
        return [shown_group(tx, group, names) for group in sorted(found, key=lambda one: (one["name"], one["id"]))]

    return Response(200, {"security_groups": await api.store.read(read)})


def shown_group(tx: Tx, group: Group, known: dict[str, Group]) -> dict[str, Any]:
    """As compute showed groups when they were its own: what comes in, and by whom."""
    return {
        "id": group["id"],
        "name": group["name"],
        "description": group["description"],
        "tenant_id": group["project_id"],
        "rules": [_rule(tx, rule, known) for rule in group["rules"] if rule["direction"] == INGRESS],
    }


def _rule(tx: Tx, rule: RuleRow, known: dict[str, Group]) -> dict[str, Any]:
    remote: dict[str, str] = {}
    if rule["remote_group_id"]:
        other = known.get(rule["remote_group_id"]) or groups.get(tx, rule["remote_group_id"])
        remote = {"name": other["name"], "tenant_id": other["project_id"]}
    anywhere = "::/0" if rule["ethertype"] == "IPv6" else "0.0.0.0/0"
    return {
        "id": rule["id"],
        "parent_group_id": rule["group_id"],
        "ip_protocol": rule["protocol"],
        "from_port": rule["port_min"],
        "to_port": rule["port_max"],
        "ip_range": {} if remote else {"cidr": rule["remote_cidr"] or anywhere},
        "group": remote,
    }
