"""A server without a config drive: its key and user data come from the metadata service of its host, before and after
it has moved, and whoever dies meanwhile."""

from __future__ import annotations

import base64
import json
import signal
import subprocess

import pytest

from lab.hosts import obstacle
from lab.login import Login, command
from lab.quickstart import INSIDE, KEY
from tests.lab.witness import COMPUTE, Witness, patiently

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
NET = "/network/v2.0"
COMES_UP_S = 90.0
ADDRESS = "latest/meta-data/local-ipv4"
USER_DATA = "#!/bin/sh\necho USERDATA RAN\n"


class Reached:
    """A guest that one is logged in to, through its floating IP."""

    def __init__(self, witness: Witness, name: str) -> None:
        self._cloud = witness.cloud
        login = Login(witness.cloud, print)
        self.address = login.address(login.server(name))
        login.wait_for_sshd(name, self.address)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            command(self._cloud, self.address, *words), capture_output=True, text=True, timeout=120, check=False
        )
        return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"

    def told(self, *paths: str) -> list[str]:
        """In one session: each costs the guest a second."""
        lines = (f"timeout 30 wget -q -O - http://169.254.169.254/{path}; echo -n @@" for path in paths)
        return self.run("; ".join(lines)).split("@@")[:-1]


def kept(witness: Witness, host: str) -> list[str]:
    """The guests whose data that host has."""
    place = witness.cloud.home / "hosts" / host / "neutron-linuxbridge-agent" / "guests"
    return sorted(path.stem for path in place.glob("*.json"))


def create(witness: Witness, name: str, host: str) -> str:
    networks = witness.compute.must("GET", f"{NET}/networks?name={INSIDE}")["networks"]
    server = {
        "name": name,
        "imageRef": witness.image,
        "flavorRef": "tiny",
        "host": host,
        "networks": [{"uuid": networks[0]["id"]}],
        "key_name": KEY,
        "user_data": base64.b64encode(USER_DATA.encode()).decode(),
        "metadata": {"role": "web"},
    }
    made = str(witness.compute.must("POST", f"{COMPUTE}/servers", {"server": server}, version="2.96")["server"]["id"])
    witness.servers.add(made)
    witness.compute.wait(made, "ACTIVE")
    return made


def test_key_and_user_data_come_from_the_host_of_the_server_wherever_it_is(witness: Witness) -> None:
    server = create(witness, "meta", "h1")
    witness.wait(lambda: "USERDATA RAN" in witness.console(server), COMES_UP_S, "user data")
    assert "CONFIGURED meta from 169.254.169.254" in witness.console(server)
    guest = Reached(witness, "meta")  # by the key that it found there
    document, user_data, address = guest.told("openstack/latest/meta_data.json", "latest/user-data", ADDRESS)
    assert json.loads(document)["meta"] == {"role": "web"} and user_data == USER_DATA
    assert address.startswith("10.0.0.")
    assert (kept(witness, "h1"), kept(witness, "h2")) == ([server], [])

    witness.compute.migrate(server, "h2")
    assert witness.compute.wait_migrated(server)["status"] == "completed"
    assert guest.told(ADDRESS) == [address]
    witness.wait(lambda: kept(witness, "h1") == [], 60, "the source's forgetting")
    assert kept(witness, "h2") == [server]

    # Without control, and without the agent.
    for one in witness.processes_of("control") + witness.processes_of("--host", "h2", "neutron-linuxbridge-agent"):
        one.send(signal.SIGKILL)
    assert guest.told(ADDRESS) == [address]
    assert patiently(lambda: bool(witness.services()), 60)
    witness.usable("h1", "h2")
    assert guest.told(ADDRESS) == [address]
    for one in witness.compute.must("GET", f"{NET}/floatingips")["floatingips"]:
        witness.compute.must("DELETE", f"{NET}/floatingips/{one['id']}")
