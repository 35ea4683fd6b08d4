"""A switch that is cut: the copy has come to its end, the guest stands still at both hosts, and the word that lets one
of the two go on does not arrive. It runs once, whoever is killed or not heard, and its row says where.

libvirt resumes a guest at its source when it does not hear what became of it at the destination, where it may run by
then (qemu_migration.c says so: "the lock manager plugins should take care of safety in this scenario"). Here QEMU's
locks on the disk's file do: whoever comes second cannot open it.
"""

from __future__ import annotations

import contextlib
import math
import re
import signal
from collections.abc import Iterator

import pytest

from lab.hosts import obstacle
from lab.processes import wait_for
from tests.lab.test_cloud_killed import ENDS_S, FAST_MIB_S, ended_legally, under_way
from tests.lab.witness import Witness

REASON = obstacle()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.full,
    pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}"),
]


NEARLY_MIB_S, LITTLE_MIB = "16", 24.0
_UNITS = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
# In one shell, because to enter the host takes a tenth of the time that there is.
LETS_IT_END = """virsh -q -c qemu:///system migrate-setspeed "$1" "$2"
for _ in $(seq 100); do virsh -q -c qemu:///system domstate "$1" | grep -q paused && exit 0; sleep 0.01; done; exit 1"""


def remains_mib(told: str) -> float:
    """Of its memory, as `virsh domjobinfo` says."""
    found = re.search(r"Memory remaining: +([0-9.]+) (\w+)", told)
    return float(found[1]) * _UNITS.get(found[2], 0.0) if found else math.inf


@contextlib.contextmanager
def in_its_last_phase(witness: Witness, server: str) -> Iterator[tuple[str, str]]:
    """(source, destination): all of the guest has been copied, its source stands still, and the libvirtd of its
    destination is stopped, so that it has not let it go on there. Afterwards that goes on, if it is still there."""
    source, destination = under_way(witness, server)
    here, there = witness.cloud.lab.host(source), witness.cloud.lab.host(destination).libvirtd
    assert there is not None
    witness.virsh(source, "migrate-setspeed", server, NEARLY_MIB_S)
    assert wait_for(lambda: remains_mib(witness.virsh(source, "domjobinfo", server)) < LITTLE_MIB, ENDS_S)
    there.send(signal.SIGSTOP)  # libvirtd at the source waits two seconds for it, and no longer
    try:
        stands_still = here.run("sh", "-c", LETS_IT_END, "-", server, FAST_MIB_S)
        assert stands_still.returncode == 0, f"{stands_still} {witness.virsh(source, 'domstate', server)}"
        yield source, destination
    finally:
        there.send(signal.SIGCONT)


def goes_on(witness: Witness, server: str, source: str, destination: str) -> str:
    """However it ended, it moves again; to a host that was switched on a moment ago that has taken 70 s."""
    status = ended_legally(witness, server, source, destination)
    witness.compute.migrate(server)
    assert witness.compute.wait_migrated(server, ENDS_S)["status"] == "completed"
    return status


def test_the_destination_answers_too_late(witness: Witness, ada: str) -> None:
    """Its source has given it up by then, and runs the guest."""
    with in_its_last_phase(witness, ada) as (source, destination):
        resumed = wait_for(lambda: "running" in witness.virsh(source, "domstate", ada), ENDS_S)
        assert resumed, witness.virsh(source, "domstate", ada)
    assert goes_on(witness, ada, source, destination) == "error"


def test_the_libvirtd_of_the_destination_is_killed(witness: Witness, ada: str) -> None:
    with in_its_last_phase(witness, ada) as (source, destination):
        witness.cloud.lab.kill_libvirtd(destination)
    goes_on(witness, ada, source, destination)


def test_the_libvirtd_of_the_source_is_killed(witness: Witness, ada: str) -> None:
    with in_its_last_phase(witness, ada) as (source, destination):
        witness.cloud.lab.kill_libvirtd(source)
    goes_on(witness, ada, source, destination)


def test_the_destination_is_powered_off(witness: Witness, ada: str) -> None:
    """Where its source does not run it again by itself, nobody says where it is until that host has come back."""
    with in_its_last_phase(witness, ada) as (source, destination):
        witness.cloud.lab.power_off(destination, silent=True)
    assert wait_for(lambda: witness.services()[destination]["word"] == "down", ENDS_S)
    witness.cloud.lab.power_on(destination)
    witness.usable(destination)
    assert goes_on(witness, ada, source, destination) == "error"


def test_the_destination_is_cut_off_and_lets_it_go_on(witness: Witness, ada: str) -> None:
    """It runs there, and its source never hears of that."""
    with in_its_last_phase(witness, ada) as (source, destination):
        witness.cloud.lab.cut(destination)
    try:
        goes = wait_for(lambda: ada in witness.places("--state-running"), ENDS_S)
        assert goes, witness.places("--all")
    finally:
        witness.cloud.lab.mend(destination)
    goes_on(witness, ada, source, destination)


# -- hosts that do not hear each other, and are heard -----------------------------------------------------------------
@contextlib.contextmanager
def deaf_to_each_other(witness: Witness, one: str, other: str) -> Iterator[None]:
    """What either sends to the other goes nowhere, and nobody is told so."""
    host, peer = witness.cloud.lab.host(one), witness.cloud.lab.host(other)
    rules = f"""table inet deaf {{
        chain in {{ type filter hook input priority -300; ip saddr {peer.address} drop; }}
        chain out {{ type filter hook output priority -300; ip daddr {peer.address} drop; }}
    }}"""
    made = host.run("nft", rules)
    assert made.returncode == 0, made.stderr
    try:
        yield
    finally:
        host.run("nft", "delete", "table", "inet", "deaf")


def test_the_two_hosts_hear_each_other_no_more_in_mid_copy(witness: Witness, ada: str) -> None:
    source, destination = under_way(witness, ada)
    with deaf_to_each_other(witness, source, destination):
        assert witness.compute.wait_migrated(ada, ENDS_S)["status"] == "error"
        witness.compute.wait(ada, "ACTIVE")
        witness.is_resting(ada, "ACTIVE", source)
    assert goes_on(witness, ada, source, destination) == "error"


def test_the_two_hosts_hear_each_other_no_more_in_the_last_phase(witness: Witness, ada: str) -> None:
    with contextlib.ExitStack() as deaf:
        with in_its_last_phase(witness, ada) as (source, destination):
            deaf.enter_context(deaf_to_each_other(witness, source, destination))
        goes = wait_for(lambda: ada in witness.places("--state-running"), ENDS_S)
        assert goes, witness.places("--all")
    goes_on(witness, ada, source, destination)
