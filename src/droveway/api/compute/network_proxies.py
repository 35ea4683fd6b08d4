"""Networks, floating IPs and security groups as compute showed them when they were its own, until 2.35. To read alone:
old clients look here (Prometheus for the floating IPs of its targets); who changes something asks Networking."""

from __future__ import annotations

from typing import Any

from droveway.api.compute.server_interfaces import shown_group
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.store.engine.transaction import Tx
from droveway.store.network import floating, groups, networks, ports
from droveway.store.network.finding import Asked
from droveway.store.network.rows import FloatingIpRow, NetworkRow

# What compute knew of networks that it made itself; of these here it says nothing more than the name.
_UNKNOWN = ("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6")
_UNKNOWN_TO_ADMINS = (
    *("created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address"),
    *("vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host"),
    *("priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address"),
)
Shown = dict[str, Any]


def _asked(request: Request, api: Api, **more: Any) -> Asked:
    return Asked(request.caller.project_id, limit=api.settings.page_max, **more)


# -- floating IPs -----------------------------------------------------------------------------------------------------
def _floating(tx: Tx, rows: list[FloatingIpRow]) -> list[Shown]:
    used = {row["port_id"] for row in rows if row["port_id"] is not None}
    devices = {port_id: ports.row_of(tx, port_id)["device_id"] or None for port_id in used}
    pools = {network_id: networks.row_of(tx, network_id) for network_id in {row["floating_network_id"] for row in rows}}
    return [
        {
            "id": row["id"],
            "ip": row["address"],
            "fixed_ip": row["fixed_address"],
            "instance_id": None if row["port_id"] is None else devices[row["port_id"]],
            "pool": pools[row["floating_network_id"]]["name"] or row["floating_network_id"],
        }
        for row in rows
    ]


async def list_floating_ips(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[Shown]:
        return _floating(tx, floating.find(tx, _asked(request, api)))

    return Response(200, {"floating_ips": await api.store.read(read)})


async def show_floating_ip(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> Shown:
        return _floating(tx, [floating.get(tx, request.params["id"], request.scope)])[0]

    return Response(200, {"floating_ip": await api.store.read(read)})


async def list_pools(api: Api, request: Request) -> Response:
    """The names of the networks that have floating IPs."""

    def read(tx: Tx) -> list[Shown]:
        outside = networks.find(tx, _asked(request, api, exact={"external": (True,)}))
        return [{"name": network["name"] or network["id"]} for network in outside]

    return Response(200, {"floating_ip_pools": await api.store.read(read)})


# -- networks ---------------------------------------------------------------------------------------------------------
def _network(request: Request, row: NetworkRow) -> Shown:
    names = _UNKNOWN + (_UNKNOWN_TO_ADMINS if request.caller.is_admin else ())
    return {"id": row["id"], "label": row["name"], **dict.fromkeys(names)}


def _tenant_network(row: NetworkRow) -> Shown:
    return {"id": row["id"], "label": row["name"], "cidr": "None"}  # the word, as Nova says it


def _find(tx: Tx, api: Api, request: Request) -> list[NetworkRow]:
    return list(networks.find(tx, _asked(request, api)))


def _get(tx: Tx, request: Request) -> NetworkRow:
    return networks.row_of(tx, request.params["id"], request.scope)


async def list_networks(api: Api, request: Request) -> Response:
    rows = await api.store.read(_find, api, request)
    return Response(200, {"networks": [_network(request, row) for row in rows]})


async def show_network(api: Api, request: Request) -> Response:
    return Response(200, {"network": _network(request, await api.store.read(_get, request))})


async def list_tenant_networks(api: Api, request: Request) -> Response:
    rows = await api.store.read(_find, api, request)
    return Response(200, {"networks": [_tenant_network(row) for row in rows]})


async def show_tenant_network(api: Api, request: Request) -> Response:
    return Response(200, {"network": _tenant_network(await api.store.read(_get, request))})


# -- security groups --------------------------------------------------------------------------------------------------
async def list_groups(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[Shown]:
        found = groups.find(tx, _asked(request, api))
        known = {group["id"]: group for group in found}
        shown = [shown_group(tx, group, known) for group in found]
        return sorted(shown, key=lambda one: (one["tenant_id"], one["name"]))

    return Response(200, {"security_groups": await api.store.read(read)})


async def show_group(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> Shown:
        group = groups.get(tx, request.params["id"], request.scope)
        return shown_group(tx, group, {group["id"]: group})

    return Response(200, {"security_group": await api.store.read(read)})
