"""The interfaces and security groups that a new server is asked for: checked, and named by their ids, in the very
transaction that writes the server. Its boot makes the ports."""

from __future__ import annotations

from collections.abc import Sequence

from droveway.api.compute.server_body import NicsAsked
from droveway.api.http.request import Request
from droveway.api.network.topologies import made as made_topology
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound
from droveway.store.compute import server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.network import choosing, groups, networks, ports, quotas, topologies

NO_NETWORKS = (
    "There are no networks in this cloud; create the server without one (networks: none, openstack server create "
    "--nic none)."
)
TAGS_FIRST, TAGS_GONE, TAGS_AGAIN = 32, 37, 42  # microversions: an interface had a tag, had none, and has one again
DEFAULT = "default"


def check(api: Api, request: Request, asked: NicsAsked, group_names: Sequence[str], most: int) -> None:
    """As far as that goes without the store. Raises BadRequest."""
    if not api.settings.network.is_on:
        if asked not in ("none", ()):
            raise BadRequest(NO_NETWORKS)
        if set(group_names) - {DEFAULT}:
            raise BadRequest(f"Invalid input for server.security_groups: there is no group {group_names[0][:64]}.")
        return
    several = () if isinstance(asked, str) else asked
    if any(nic.tag for nic in several) and not (
        TAGS_FIRST <= request.version < TAGS_GONE or request.version >= TAGS_AGAIN
    ):
        raise BadRequest("Invalid input for server.networks: additional properties are not allowed ('tag').")
    if most > 1 and any(nic.port_id for nic in several):
        raise BadRequest("Unable to launch multiple instances with a single configured port ID: leave it out.")
    if most > 1 and any(nic.address for nic in several):
        raise BadRequest("max_count cannot be greater than 1 if an fixed_ip is specified.")


def resolved(
    tx: Tx, api: Api, request: Request, asked: NicsAsked, count: int, project_id: str
) -> tuple[NicRequest, ...]:
    """What each of `count` servers of that project gets. Raises BadRequest, Conflict, and Forbidden when the quota is
    used up, or what was asked for is another project's to give."""
    if not api.settings.network.is_on or asked == "none":
        return ()
    if isinstance(asked, str):
        found: tuple[NicRequest, ...] = (NicRequest(network_id=_automatic(tx, api, project_id)),)
    elif not asked:
        found = tuple(NicRequest(network_id=each) for each in _the_only(tx, project_id))
    else:
        for nic in asked:
            _check(tx, request, nic)
        found = asked
    made = sum(not nic.port_id for nic in found)
    if made:
        quotas.claim(tx, "port", project_id, api.settings.network.quotas, made * count)
    return found


def _check(tx: Tx, request: Request, nic: NicRequest) -> None:
    try:
        if nic.port_id:
            port = ports.row_of(tx, nic.port_id, request.scope)
            if request.scope not in (None, port["project_id"]):  # one sees those of others on one's network
                raise BadRequest(f"Port {nic.port_id} not usable for this server: it is another project's.")
            server_ports.check_free(port)
            if nic.network_id not in ("", port["network_id"]):
                raise BadRequest(f"Port {nic.port_id} is in the network {port['network_id']}, not {nic.network_id}.")
            return
        network = networks.row_of(tx, nic.network_id, request.scope)
    except NotFound as fault:
        raise BadRequest(fault.reason) from None
    if network["external"] and not network["shared"] and request.scope not in (None, network["project_id"]):
        raise BadRequest(
            f"It is not allowed to create an interface on external network {nic.network_id}: use one of your project's "
            "and give the server a floating IP."
        )
    if nic.address and request.scope not in (None, network["project_id"]):
        raise Forbidden(
            f"Network {nic.network_id} is another project's, and a fixed IP there cannot be chosen: leave the address "
            "out."
        )
    if not choosing.has_subnet(tx, nic.network_id):
        raise BadRequest(f"Network {nic.network_id} requires a subnet in order to boot instances on.")


def _the_only(tx: Tx, project_id: str) -> list[str]:
    """Where no network was named, the project's one; it may have none."""
    found = choosing.usable_networks(tx, project_id)
    if len(found) > 1:
        raise Conflict("Multiple possible networks found, use a Network ID to be more specific.")
    return found


def _automatic(tx: Tx, api: Api, project_id: str) -> str:
    """The one network of the project; what is missing of one is made, and a way out where there is one."""
    found = _the_only(tx, project_id)
    there = topologies.of(tx, project_id)
    if found and (there is None or found[0] != there.network_id):
        return found[0]
    return made_topology(tx, api, project_id).network_id


def group_ids(tx: Tx, api: Api, project_id: str, names: Sequence[str]) -> tuple[str, ...]:
    """Of the project's groups by name or id. Raises BadRequest."""
    if not api.settings.network.is_on:
        return ()
    return tuple(dict.fromkeys(_group(tx, project_id, name) for name in names))


def _group(tx: Tx, project_id: str, name: str) -> str:
    if name == DEFAULT:
        return groups.default_of(tx, project_id)
    found = choosing.groups_called(tx, project_id, name)
    if name in found:
        return name
    if not found:
        raise BadRequest(f"Unable to find security_group with name or id '{name[:64]}'.")
    if len(found) > 1:
        raise Conflict(f"Multiple security_groups matches found for name '{name[:64]}', use an ID to be more specific.")
    return found[0]
