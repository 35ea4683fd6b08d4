"""Bodies and filters against what neutron-lib says of each attribute, for the extensions that are in our list.

`neutron_attributes.json` is what tests/clients/with_neutron_lib.py printed; with --full it is asked again.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from droveway.api.http.bodies import Body, members
from droveway.api.network import floatingips, networks, ports, routers, subnetpools, subnets
from droveway.api.network.discovery import EXTENSIONS
from droveway.api.network.listing import Resource
from lab import other_clients
from tests.api.network_world import get, make, make_subnet, networked, refused

CLONE = Path(__file__).parents[2]
SAYS: dict[str, dict[str, list[str]]] = json.loads((Path(__file__).parent / "neutron_attributes.json").read_text())
# Of extensions that are about every resource, and of security groups, which neutron-lib does not describe.
STANDARD = {"description", "tags", "revision_number", "created_at", "updated_at", "project_id"}
FILTERS_MORE = {"project_id", "description", "revision_number", "port_security_enabled", "binding:vnic_type"}
REFUSED = {
    "provider:network_type",
    "provider:physical_network",
    "provider:segmentation_id",
}  # of a network that is there
RESOURCES: dict[str, tuple[Resource, type[Body], type[Body], set[str]]] = {
    "networks": (networks.NETWORKS, networks.NewNetworkBody, networks.ChangedNetwork, set()),
    "subnets": (subnets.SUBNETS, subnets.NewSubnetBody, subnets.ChangedSubnet, set()),
    "subnetpools": (subnetpools.POOLS, subnetpools.NewSubnetPoolBody, subnetpools.ChangedSubnetPool, set()),
    "ports": (ports.PORTS, ports.NewPortBody, ports.ChangedPort, {"security_groups"}),
    "routers": (routers.ROUTERS, routers.NewRouterBody, routers.ChangedRouter, set()),
    "floatingips": (floatingips.FLOATING_IPS, floatingips.NewFloatingIpBody, floatingips.ChangedFloatingIp, set()),
}


def saying(collection: str, word: str) -> set[str]:
    return {name for name, words in SAYS[collection].items() if word in words}


@pytest.mark.parametrize("collection", RESOURCES)
def test_every_attribute_is_shown_taken_and_asked_for_as_neutron_lib_says(collection: str) -> None:
    resource, new, changed, more = RESOURCES[collection]
    assert resource.fields.names == saying(collection, "visible") | STANDARD | more
    taken = {member.name for member in members(new)}
    assert taken == saying(collection, "post") | {"description", "tags", "project_id"} | more
    assert {member.name for member in members(changed)} == saying(collection, "put") - REFUSED | {"description"} | more
    assert saying(collection, "filter") <= set(resource.filters)
    assert set(resource.filters) <= saying(collection, "filter") | FILTERS_MORE | more | {"external_network_id"}


@pytest.mark.full
def test_what_is_kept_of_neutron_lib_is_what_it_says() -> None:
    try:
        bin_ = other_clients.environment("neutron-lib")
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"it cannot be had here: {error}")
    asked = [bin_ / "python", CLONE / "tests/clients/with_neutron_lib.py", *EXTENSIONS]
    done = subprocess.run(asked, capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout) == SAYS


async def test_networks_are_found_by_type_and_status_and_subnets_by_sharing(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        vxlan = await make(world, admin, "networks", name="vxlan", shared=True)
        flat = {"provider:network_type": "flat", "provider:physical_network": "physnet1"}
        await make(world, admin, "networks", name="flat", **flat)
        for query, names in (
            ("provider:network_type=vxlan", ["vxlan"]),
            ("provider:network_type=flat", ["flat"]),
            ("provider:network_type=vlan", []),
            ("status=ACTIVE", ["vxlan", "flat"]),
            ("status=DOWN", []),
        ):
            found: list[dict[str, Any]] = await get(world, admin, f"networks?{query}")
            assert [one["name"] for one in found] == names, query
        await make_subnet(world, admin, vxlan["id"], "10.1.0.0/24")
        assert [len(await get(world, admin, f"subnets?shared={value}")) for value in ("true", "false")] == [1, 0]


async def test_a_subnet_of_self_made_addresses_goes_with_them_and_no_other_does(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = (await make(world, alice, "networks", name="n"))["id"]
        modes = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
        slaac = await make_subnet(world, alice, network, "2001:db8:1::/64", **modes)
        other = await make_subnet(world, alice, network, "10.1.0.0/24")
        port = await make(world, alice, "ports", network_id=network)
        assert len(port["fixed_ips"]) == 2
        router = await make(world, alice, "routers", name="r")
        path = f"{router['id']}/add_router_interface"
        reply = await world.ask("PUT", f"/network/v2.0/routers/{path}", token=alice, json={"subnet_id": slaac["id"]})
        assert reply.status_code == 200
        status, kind, words = await refused(world, alice, "DELETE", f"subnets/{slaac['id']}")
        assert (status, kind, "network:router_interface" in words) == (409, "SubnetInUse", True)
        path = path.replace("add", "remove")
        await world.ask("PUT", f"/network/v2.0/routers/{path}", token=alice, json={"subnet_id": slaac["id"]})
        reply = await world.ask("DELETE", f"/network/v2.0/subnets/{slaac['id']}", token=alice)
        assert reply.status_code == 204, reply.text
        left = await get(world, alice, f"ports/{port['id']}")
        assert [one["subnet_id"] for one in left["fixed_ips"]] == [other["id"]]
        assert left["revision_number"] == port["revision_number"] + 1
        assert (await refused(world, alice, "DELETE", f"subnets/{other['id']}"))[1] == "SubnetInUse"
