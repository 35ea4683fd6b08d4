"""Whatever is killed in the middle of an operation on real hosts: it ends legally, and nothing is lost or left."""

from __future__ import annotations

import signal

import pytest

from lab.hosts import obstacle
from lab.processes import wait_for
from tests.lab.witness import COMPUTE, Witness, patiently, paused

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
ENDS_S = 120.0
SLOW_MIB_S = "8"  # so slow that a copy is surely under way when something is killed
FAST_MIB_S = "8000"


def control_is_killed(witness: Witness) -> None:
    """The supervisor starts it again."""
    killed = witness.processes_of("control")
    assert killed
    for one in killed:
        one.send(signal.SIGKILL)
    assert wait_for(lambda: not any(one.is_alive() for one in killed), 30)


def is_answered(witness: Witness) -> None:
    """Control is back and uses both hosts."""
    assert patiently(lambda: bool(witness.services()), ENDS_S)
    witness.usable("h1", "h2")


def has_status(witness: Witness, server: str, *wanted: str) -> str:
    """Until the server rests in one of these; which one."""
    found = {"status": "", "OS-EXT-STS:task_state": ""}

    def rests() -> bool:
        found.update(witness.compute.server(server))
        return found["status"] in wanted and found["OS-EXT-STS:task_state"] is None

    assert patiently(rests, ENDS_S), f"{found['status']} ({found['OS-EXT-STS:task_state']}), not {wanted}"
    return found["status"]


# -- in the middle of a boot or a delete ------------------------------------------------------------------------------
@pytest.mark.parametrize("after_s", [0.0, 0.15])
def test_libvirtd_is_killed_in_the_middle_of_a_boot(witness: Witness, after_s: float) -> None:
    server = witness.create("stubborn", host="h2")
    paused(after_s)
    witness.cloud.lab.kill_libvirtd("h2")
    has_status(witness, server, "ACTIVE")
    witness.usable("h2")
    witness.settled()
    witness.wait_for_tick(server, 0)


@pytest.mark.parametrize("after_s", [0.0, 0.2])
def test_control_is_killed_in_the_middle_of_a_boot(witness: Witness, after_s: float) -> None:
    server = witness.create("orphan")
    paused(after_s)
    control_is_killed(witness)
    has_status(witness, server, "ACTIVE")
    witness.settled()


@pytest.mark.parametrize("after_s", [0.0, 0.03])
def test_control_is_killed_in_the_middle_of_a_delete(witness: Witness, after_s: float) -> None:
    server = witness.create("short-lived")
    witness.compute.wait(server, "ACTIVE")
    witness.compute.must("DELETE", f"{COMPUTE}/servers/{server}")
    paused(after_s)
    control_is_killed(witness)
    assert patiently(lambda: witness.compute.call("GET", f"{COMPUTE}/servers/{server}")[0] == 404, ENDS_S)
    witness.servers.discard(server)
    witness.settled()


# -- in the middle of a live migration --------------------------------------------------------------------------------
def under_way(witness: Witness, server: str) -> tuple[str, str]:
    """A copy that goes slowly; (source, destination)."""
    source = witness.compute.host_of(server)
    witness.virsh(source, "migrate-setspeed", server, SLOW_MIB_S)
    witness.compute.migrate(server)
    assert wait_for(lambda: "Outgoing migration" in witness.virsh(source, "domjobinfo", server), ENDS_S)
    return source, witness.other_than(source)


def ended_legally(witness: Witness, server: str, source: str, destination: str) -> str:
    """The row says where it runs, it runs there alone, and its memory is whole; the migration's status."""
    migration = witness.compute.wait_migrated(server)
    has_status(witness, server, "ACTIVE")
    where = destination if migration["status"] == "completed" else source
    witness.is_resting(server, "ACTIVE", where)
    is_answered(witness)
    witness.settled()
    witness.ticks_on(server)
    witness.virsh(where, "migrate-setspeed", server, FAST_MIB_S)
    return str(migration["status"])


@pytest.mark.parametrize("at", ["source", "destination"])
def test_libvirtd_is_killed_in_the_middle_of_a_live_migration(witness: Witness, ada: str, at: str) -> None:
    source, destination = under_way(witness, ada)
    witness.cloud.lab.kill_libvirtd(source if at == "source" else destination)
    assert ended_legally(witness, ada, source, destination) == "error"
    witness.compute.migrate(ada)
    assert witness.compute.wait_migrated(ada)["status"] == "completed"


def test_control_is_killed_in_the_middle_of_a_live_migration(witness: Witness, ada: str) -> None:
    """The copy needs none of us: it goes on."""
    source, destination = under_way(witness, ada)
    control_is_killed(witness)
    witness.virsh(source, "migrate-setspeed", ada, FAST_MIB_S)
    assert ended_legally(witness, ada, source, destination) == "completed"


def test_the_agents_are_killed_in_the_middle_of_a_live_migration(witness: Witness, ada: str) -> None:
    """The next agents read the job from libvirt and adopt it."""
    source, destination = under_way(witness, ada)
    for one in witness.processes_of("agent"):
        one.send(signal.SIGKILL)
    witness.virsh(source, "migrate-setspeed", ada, FAST_MIB_S)
    assert ended_legally(witness, ada, source, destination) == "completed"


def test_a_guest_is_deleted_in_the_middle_of_its_live_migration(witness: Witness) -> None:
    server = witness.booted("fleeting")
    under_way(witness, server)
    witness.delete(server)
    witness.settled()


# -- a host that goes down --------------------------------------------------------------------------------------------
def test_a_host_is_powered_off_and_on_again(witness: Witness, ada: str) -> None:
    """It shows down at once and takes nobody; when it is back, what should run there runs again, once."""
    here = witness.compute.host_of(ada)
    host = witness.other_than(here)
    stopped, running = witness.create("rests", host=host), witness.booted("runs", host=host)
    witness.wait_for_tick(stopped, 2)  # earlier it would not hear the power button
    witness.compute.must("POST", f"{COMPUTE}/servers/{stopped}/action", {"os-stop": None})
    witness.compute.wait(stopped, "SHUTOFF")

    witness.cloud.lab.power_off(host)
    assert wait_for(lambda: witness.services()[host]["word"] == "down", 30)
    status, body = witness.compute.act(ada, {"os-migrateLive": {"host": host, "block_migration": "auto"}}, "2.30")
    assert status == 400
    assert f"{host} cannot take it: it is down: its agent's connection ended" in body["badRequest"]["message"]
    witness.compute.migrate(ada, host)
    assert witness.compute.wait_migrated(ada)["status"] == "error"
    witness.is_resting(ada, "ACTIVE", here)
    status, body = witness.compute.act(running, {"os-migrateLive": {"host": here, "block_migration": "auto"}}, "2.30")
    assert status == 400
    assert f"its host {host} is down" in body["badRequest"]["message"]

    witness.cloud.lab.power_on(host)
    witness.usable(host)
    assert wait_for(lambda: running in witness.places("--state-running"), ENDS_S)
    has_status(witness, running, "ACTIVE")
    has_status(witness, stopped, "SHUTOFF")
    witness.comes_up(running, 2)
    witness.settled()
    sagas = witness.compute.must("GET", "/droveway/v1/sagas?all=1&limit=100")["sagas"]
    starts = [one["subject_id"] for one in sagas if one["kind"] == "start"]
    assert (starts.count(running), starts.count(stopped)) == (1, 0)


def test_a_guest_is_deleted_while_its_host_is_down(witness: Witness) -> None:
    """The deletion waits for the host, says so, and leaves nothing when it is back."""
    server = witness.create("doomed", host="h2")
    witness.compute.wait(server, "ACTIVE")
    witness.cloud.lab.power_off("h2")
    assert wait_for(lambda: witness.services()["h2"]["word"] == "down", 30)
    witness.compute.must("DELETE", f"{COMPUTE}/servers/{server}")
    paused(0.5)
    assert witness.compute.server(server)["OS-EXT-STS:task_state"] == "deleting"
    witness.cloud.lab.power_on("h2")
    witness.usable("h2")
    assert patiently(lambda: witness.compute.call("GET", f"{COMPUTE}/servers/{server}")[0] == 404, ENDS_S)
    witness.servers.discard(server)
    witness.settled()
