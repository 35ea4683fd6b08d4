"""What a newcomer types, with the unmodified `openstack` command, in the order of the README."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import image
from lab.compute import ticks
from lab.hosts import obstacle
from lab.processes import wait_for
from lab.quickstart import KEY, key_path
from lab.visitor import Visitor
from tests.lab.test_up import dev
from tests.lab.witness import Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
COMMAND_S = 120


class Newcomer:
    def __init__(self, witness: Witness) -> None:
        self._cloud = witness.cloud
        self._environment = {
            "OS_CLIENT_CONFIG_FILE": str(witness.cloud.clouds_yaml),
            "OS_CLOUD": "droveway",
            "PATH": os.environ["PATH"],
            "HOME": str(witness.cloud.home),
        }

    def types(self, *words: str) -> str:
        command = [str(Path(sys.executable).with_name("openstack")), *words]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd="/"
        )
        assert done.returncode == 0, f"openstack {' '.join(words)}: {done.stderr}"
        return done.stdout

    def is_told(self, *words: str) -> str:
        """The one sentence with which `./dev ssh` refuses."""
        done = dev(self._cloud, "ssh", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stdout + done.stderr
        return done.stderr.removeprefix("dev: ").rstrip("\n")

    def reads(self, *words: str) -> Any:
        return json.loads(self.types(*words, "-f", "json"))


def test_the_commands_of_the_readme(witness: Witness, tmp_path: Path) -> None:
    newcomer = Newcomer(witness)
    services = {(one["Binary"], one["Host"]): one["State"] for one in newcomer.reads("compute", "service", "list")}
    assert services[("nova-compute", "h1")] == services[("nova-compute", "h2")] == "up"
    hypervisors = newcomer.reads("hypervisor", "list", "--long")
    addresses = {host.name: host.address for host in witness.cloud.lab.hosts}
    shown = {(one["Hypervisor Hostname"], one["Host IP"], one["State"]) for one in hypervisors}
    assert shown == {(name, address, "up") for name, address in addresses.items()}

    mine = tmp_path / "my.qcow2"
    made_from = ["-O", "qcow2", str(image.image(witness.cloud.home / "cache")), str(mine)]
    subprocess.run(["qemu-img", "convert", *made_from], check=True, timeout=COMMAND_S)
    uploaded = newcomer.reads("image", "create", "--disk-format", "qcow2", "--file", str(mine), "mine")
    assert (uploaded["status"], uploaded["disk_format"]) == ("active", "qcow2")

    connected = ["--network", "private", "--key-name", KEY]
    created = newcomer.reads("server", "create", "--flavor", "tiny", "--image", "mine", *connected, "--wait", "g1")
    server, source = created["id"], created["OS-EXT-SRV-ATTR:host"]
    witness.servers.add(server)
    assert created["status"] == "ACTIVE"
    witness.wait_for_tick(server, 1)
    assert ticks(newcomer.types("console", "log", "show", "g1"))[:2] == [0, 1]

    logged_in = dev(witness.cloud, "ssh", "g1", "hostname; whoami; exit 7")
    assert (logged_in.returncode, logged_in.stdout) == (7, "g1\nroot\n"), logged_in.stderr
    assert "g1 has got the floating IP 172.24.4." in logged_in.stderr
    assert key_path(witness.cloud.home).stat().st_mode & 0o777 == 0o600
    inside, floating = (one["addr"] for one in witness.compute.server(server)["addresses"]["private"])
    assert inside.startswith("10.0.0.") and floating.startswith("172.24.4.")
    visitor = Visitor(witness.cloud, floating)
    try:
        visitor.look()
        newcomer.types("server", "migrate", "--live-migration", "--wait", "g1")
        visitor.look()
    finally:
        visitor.leave()
    again = dev(witness.cloud, "ssh", server, "hostname")
    assert (again.returncode, again.stdout, again.stderr) == (0, "g1\n", "")  # by its id, and no second floating IP
    witness.is_resting(server, "ACTIVE", witness.other_than(source))
    witness.ticks_on(server)
    migrations = newcomer.reads("server", "migration", "list")
    assert [(one["Server UUID"], one["Source Compute"], one["Status"]) for one in migrations[:1]] == [
        (server, source, "completed")
    ]

    newcomer.types("server", "stop", "g1")
    witness.compute.wait(server, "SHUTOFF")
    assert server not in witness.places("--state-running")
    assert newcomer.is_told("g1") == "g1 is SHUTOFF, not ACTIVE: ./dev openstack server start g1"
    newcomer.types("server", "start", "g1")
    witness.compute.wait(server, "ACTIVE")
    newcomer.types("server", "reboot", "--hard", "g1")
    witness.compute.wait(server, "ACTIVE")
    witness.settled()
    assert wait_for(lambda: witness.boots(server) >= 2 and witness.last_tick(server) >= 0, COMMAND_S)

    newcomer.types("server", "delete", "--wait", "g1")
    witness.servers.discard(server)
    witness.settled()
    witness.compute.must("DELETE", f"/image/v2/images/{uploaded['id']}")
    (left,) = witness.compute.must("GET", "/network/v2.0/floatingips")["floatingips"]
    assert left["port_id"] is None
    witness.compute.must("DELETE", f"/network/v2.0/floatingips/{left['id']}")


def test_who_cannot_be_logged_in_to_is_said_in_a_sentence(witness: Witness, ada: str) -> None:
    newcomer = Newcomer(witness)
    assert newcomer.is_told("nosuch").startswith("there is no server nosuch: ./dev openstack server list")
    assert newcomer.is_told("a.a").startswith("there is no server a.a:")  # no pattern
    assert newcomer.is_told("ada").startswith("ada was made without a key: nobody can log in")
    witness.create("island", key_name=KEY)
    told = dev(witness.cloud, "ssh", "island")
    assert told.returncode == 1
    assert told.stderr.endswith("dev: island has no IPv4 address: ./dev openstack server add network island private\n")
    witness.create("island", key_name=KEY)
    assert newcomer.is_told("island").startswith("2 servers are called island: give an id of ")
    used_wrongly = dev(witness.cloud, "ssh")
    assert (used_wrongly.returncode, used_wrongly.stderr[:14]) == (2, "usage: ./dev s")
