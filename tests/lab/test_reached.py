"""A server that is reached from outside stays reached when the host of its router loses its power."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cloud import Cloud
from lab.hosts import obstacle
from lab.login import Login
from lab.quickstart import INSIDE, KEY, NETWORK
from lab.visitor import Visitor
from tests.lab.witness import Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
PLACED_S = 30.0
NOVA = "/compute/v2.1"


def router_hosts(cloud: Cloud) -> list[str]:
    """Where there is a namespace of a router."""
    return [host.name for host in cloud.lab.hosts if host.init and "dwr-" in host.run("ip", "netns").stdout]


@pytest.fixture
def floating_ips(witness: Witness) -> Iterator[None]:
    yield
    for one in witness.compute.must("GET", f"{NETWORK}/floatingips")["floatingips"]:
        witness.compute.must("DELETE", f"{NETWORK}/floatingips/{one['id']}")


def test_the_session_goes_on_when_the_host_of_the_router_loses_its_power(witness: Witness, floating_ips: None) -> None:
    cloud, must = witness.cloud, witness.compute.must
    witness.wait(lambda: len(router_hosts(cloud)) == 1, PLACED_S, "the place of the router")
    (routing,) = router_hosts(cloud)
    inside = must("GET", f"{NETWORK}/networks?name={INSIDE}")["networks"][0]["id"]
    here = witness.other_than(routing)
    server = witness.create("reached", host=here, networks=[{"uuid": inside}], key_name=KEY)
    login = Login(cloud, print)
    address = login.address(login.server("reached"))
    login.wait_for_sshd("reached", address)
    visitor = Visitor(cloud, address)
    try:
        assert visitor.look().lost == 0
        cloud.lab.power_off(routing)
        seen = visitor.look()  # the same session
        assert seen.lost > 0
        print(f"not reached for {seen.gap_ms:.0f} ms")
        assert router_hosts(cloud) == [here]
        cloud.lab.power_on(routing)
        witness.usable(routing)
        assert visitor.look().lost == 0
        assert router_hosts(cloud) == [here]  # it stays where it is now
    finally:
        visitor.leave()
    witness.is_resting(server, "ACTIVE", here)
    # The next server gets the address of this one, whose lease nobody gave back to the DHCP server of that host.
    (fixed,) = must("GET", f"{NOVA}/servers/{server}")["server"]["addresses"][INSIDE][:1]
    witness.delete(server)
    heir = witness.create("heir", host=here, networks=[{"uuid": inside}], key_name=KEY)
    (given,) = must("GET", f"{NOVA}/servers/{heir}")["server"]["addresses"].get(INSIDE, [fixed])[:1]
    assert given["addr"] == fixed["addr"]
    login.wait_for_sshd("heir", login.address(login.server("heir")))
