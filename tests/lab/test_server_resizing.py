"""Real guests are moved while they are off and resized, with the unmodified `openstack` command; and the dry run of a
live migration of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.hosts import obstacle
from tests.lab.witness import BOOTS_S, COMPUTE, Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]


def run(witness: Witness, program: str, *words: str) -> str:
    command = [str(Path(sys.executable).with_name(program)), *words]
    own = {"OS_CLIENT_CONFIG_FILE": str(witness.cloud.clouds_yaml), "OS_CLOUD": "droveway", "COLUMNS": "300"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **own})
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def disk(witness: Witness, server: str) -> dict[str, Any]:
    """What qemu-img says of its root disk; the format is told."""
    path = witness.cloud.lab.shared / "instances" / server / "disk"
    words = ("qemu-img", "info", "-U", "-f", "qcow2", "--output=json", str(path))
    return dict(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))


def place(witness: Witness, server: str) -> str:
    return str(witness.compute.server(server)["OS-EXT-SRV-ATTR:host"])


def files(witness: Witness, server: str) -> set[str]:
    return {one.name for one in (witness.cloud.lab.shared / "instances" / server).iterdir()}


def test_there_with_a_larger_disk_and_back_and_there_for_good(witness: Witness) -> None:
    large = witness.flavor("large", ram_mb=192, disk_gb=2, vcpus=2)
    server = witness.booted("wanders")
    source, gib = place(witness, server), 1 << 30
    other = witness.other_than(source)

    plan = json.loads(run(witness, "droveway", "migration", "plan", server, "--json"))
    (there,) = plan["hosts"]
    assert (there["host"], there["verdict"], there["shares_store"]) == (other, "moves", True)
    assert plan["load"]["dirty_bytes_per_s"] is not None, "QEMU has measured it"
    assert not list((witness.cloud.lab.shared / "instances").glob(".probe-*"))

    run(witness, "openstack", "server", "resize", "--flavor", "large", "--wait", server)
    witness.is_resting(server, "VERIFY_RESIZE", other)
    witness.comes_up(server, 2)
    assert witness.places("--state-running")[server] == [other] == witness.places()[server]
    assert disk(witness, server)["virtual-size"] == 2 * gib
    assert any(name.startswith("disk.kept-") for name in files(witness, server))
    assert "<vcpu placement='static'>2</vcpu>" in witness.virsh(other, "dumpxml", server)

    run(witness, "openstack", "server", "resize", "revert", server)
    witness.compute.wait(server, "ACTIVE")
    witness.is_resting(server, "ACTIVE", source)
    witness.wait(lambda: witness.boots(server) >= 3, BOOTS_S, "the third boot")
    assert disk(witness, server)["virtual-size"] == gib
    assert witness.places()[server] == [source]
    assert not any(name.startswith("disk.kept-") for name in files(witness, server))

    run(witness, "openstack", "server", "migrate", "--wait", server)
    witness.is_resting(server, "VERIFY_RESIZE", other)
    run(witness, "openstack", "server", "resize", "confirm", server)
    witness.compute.wait(server, "ACTIVE")
    witness.is_resting(server, "ACTIVE", other)
    assert not any(name.startswith("disk.kept-") for name in files(witness, server))
    moves = witness.compute.must("GET", f"{COMPUTE}/os-migrations?instance_uuid={server}", version="2.59")["migrations"]
    assert [(one["migration_type"], one["status"]) for one in moves] == [
        ("migration", "confirmed"),
        ("resize", "reverted"),
    ]
    witness.delete(server)
    witness.compute.must("DELETE", f"{COMPUTE}/flavors/{large}")
