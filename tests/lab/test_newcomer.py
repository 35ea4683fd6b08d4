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
from tests.lab.witness import Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
COMMAND_S = 120


class Newcomer:
    def __init__(self, witness: Witness) -> None:
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

    created = newcomer.reads("server", "create", "--flavor", "tiny", "--image", "mine", "--nic", "none", "--wait", "g1")
    server, source = created["id"], created["OS-EXT-SRV-ATTR:host"]
    witness.servers.add(server)
    assert created["status"] == "ACTIVE"
    witness.wait_for_tick(server, 1)
    assert ticks(newcomer.types("console", "log", "show", "g1"))[:2] == [0, 1]

    newcomer.types("server", "migrate", "--live-migration", "--wait", "g1")
    witness.is_resting(server, "ACTIVE", witness.other_than(source))
    witness.ticks_on(server)
    migrations = newcomer.reads("server", "migration", "list")
    assert [(one["Server UUID"], one["Source Compute"], one["Status"]) for one in migrations[:1]] == [
        (server, source, "completed")
    ]

    newcomer.types("server", "stop", "g1")
    witness.compute.wait(server, "SHUTOFF")
    assert server not in witness.places("--state-running")
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
