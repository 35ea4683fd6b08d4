"""Servers with networks on real hosts: two guests on two hosts reach each other, and go on while one of them moves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from droveway.domain.network_plan import bridge_of, device_of
from lab.hosts import obstacle
from tests.lab.witness import COMPUTE, Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
NET = "/network/v2.0"
ADDRESSES = {"north": "10.99.0.11", "south": "10.99.0.12"}
COMES_UP_S = 90.0
GOES_ON_S = 30.0


class Red(NamedTuple):
    network: str
    group: str


@pytest.fixture
def red(witness: Witness) -> Iterator[Red]:
    """A network, and a group that lets pings in."""
    must = witness.compute.must
    network = must("POST", f"{NET}/networks", {"network": {"name": "red"}})["network"]["id"]
    must("POST", f"{NET}/subnets", {"subnet": {"network_id": network, "cidr": "10.99.0.0/24", "ip_version": 4}})
    group = must("POST", f"{NET}/security-groups", {"security_group": {"name": "pings"}})["security_group"]["id"]
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "icmp"}
    must("POST", f"{NET}/security-group-rules", {"security_group_rule": rule})
    yield Red(network, group)
    for server in list(witness.servers):
        if witness.compute.server(server)["name"] in ADDRESSES:
            witness.delete(server)
    must("DELETE", f"{NET}/networks/{network}")
    must("DELETE", f"{NET}/security-groups/{group}")


def pinging(address: str) -> str:
    """User data of a guest that says each time that the other one has answered."""
    script = f"""#!/bin/sh
n=0
(while :; do ping -c 1 -W 1 {address} >/dev/null 2>&1 && n=$((n + 1)) && echo "REACHED $n"; sleep 0.3; done) &
"""
    return base64.b64encode(script.encode()).decode()


def create(witness: Witness, name: str, host: str, red: Red, **more: Any) -> str:
    other = next(address for each, address in ADDRESSES.items() if each != name)
    server = {
        "name": name,
        "imageRef": witness.image,
        "flavorRef": "tiny",
        "host": host,
        "networks": [{"uuid": red.network, "fixed_ip": ADDRESSES[name]}],
        "security_groups": [{"name": red.group}],
        "config_drive": True,
        "user_data": pinging(other),
        **more,
    }
    made = str(witness.compute.must("POST", f"{COMPUTE}/servers", {"server": server}, version="2.96")["server"]["id"])
    witness.servers.add(made)
    witness.compute.wait(made, "ACTIVE")
    return made


def reached(witness: Witness, server: str) -> int:
    return witness.console(server).count("REACHED")


def goes_on(witness: Witness, server: str) -> None:
    """It reaches the other one three times more."""
    before = reached(witness, server)
    witness.wait(lambda: reached(witness, server) >= before + 3, GOES_ON_S, f"pings of {server}")


def test_guests_on_two_hosts_reach_each_other_also_after_one_has_moved(witness: Witness, red: Red) -> None:
    one, two = (host.name for host in witness.cloud.lab.hosts[:2])
    north, south = create(witness, "north", one, red), create(witness, "south", two, red)
    for server, name in ((north, "north"), (south, "south")):
        witness.wait(lambda server=server: reached(witness, server) >= 3, COMES_UP_S, f"pings of {name}")  # type: ignore[misc]
        assert f"LEASED {ADDRESSES[name]}" in witness.console(server)
        assert f"CONFIGURED {name} from /dev/vd" in witness.console(server)
        (shown,) = witness.compute.server(server)["addresses"]["red"]
        assert shown["addr"] == ADDRESSES[name]
    move = {"os-migrateLive": {"host": two, "block_migration": "auto"}}
    witness.compute.must("POST", f"{COMPUTE}/servers/{north}/action", move, version="2.30")
    witness.wait(lambda: witness.compute.server(north)["OS-EXT-SRV-ATTR:host"] == two, COMES_UP_S, "the move")
    witness.compute.wait(north, "ACTIVE")
    for server in (north, south):
        goes_on(witness, server)
    attach_and_detach(witness, north, red)
    goes_on(witness, north)


def attach_and_detach(witness: Witness, server: str, red: Red) -> None:
    """One interface more for the guest that has moved: it sees the device, and lets go of it."""
    beneath = f"{COMPUTE}/servers/{server}/os-interface"
    asked = {"interfaceAttachment": {"net_id": red.network, "tag": "back"}}
    made = witness.compute.must("POST", beneath, asked, version="2.96")["interfaceAttachment"]
    there = [one["addr"] for one in witness.compute.server(server)["addresses"]["red"]]
    assert (made["port_state"], made["fixed_ips"][0]["ip_address"] in there) == ("ACTIVE", True)
    place = next(
        one for one in witness.cloud.lab.hosts if one.name == witness.compute.server(server)["OS-EXT-SRV-ATTR:host"]
    )
    device = device_of(made["port_id"])
    assert f"master {bridge_of(red.network)}" in place.run("ip", "link", "show", device).stdout
    assert device in place.run("nft", "list", "map", "bridge", "droveway", "ports").stdout, (
        "its rules were there before it"
    )
    witness.compute.must("DELETE", f"{beneath}/{made['port_id']}")
    assert [one["addr"] for one in witness.compute.server(server)["addresses"]["red"]] == there[:1]
    assert device not in place.run("ip", "link").stdout
