"""Requests that real hosts must refuse: the right status, one clear sentence, and everything as it was before."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from lab.hosts import obstacle
from lab.processes import everyone, wait_for
from tests.lab.witness import BOOTS_S, COMPUTE, Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
DOWN_S = 20.0
SOON_S = 60.0


# -- destinations of a live migration ---------------------------------------------------------------------------------
@contextmanager
def disabled(witness: Witness, host: str) -> Iterator[None]:
    service = f"{COMPUTE}/os-services/{witness.services()[host]['id']}"
    witness.compute.must("PUT", service, {"status": "disabled", "disabled_reason": "new fans"})
    try:
        yield
    finally:
        witness.compute.must("PUT", service, {"status": "enabled"})


@contextmanager
def full(witness: Witness, host: str) -> Iterator[None]:
    """A guest with all of the disk that the host has left: its image is sparse."""
    flavor = witness.flavor("filler", disk_gb=int(witness.hypervisors()[host]["free_disk_gb"]))
    filler = witness.create("filler", flavor, host=host)
    try:
        witness.compute.wait(filler, "ACTIVE")
        yield
    finally:
        witness.delete(filler)
        witness.compute.must("DELETE", f"{COMPUTE}/flavors/{flavor}")


@contextmanager
def without_agent(witness: Witness, host: str) -> Iterator[None]:
    """It hangs: its host's heart says so."""
    agents = witness.processes_of("agent", host)
    assert agents
    for one in agents:
        one.send(signal.SIGSTOP)
    try:
        assert wait_for(lambda: witness.services()[host]["word"] == "down", DOWN_S)
        yield
    finally:
        for one in reversed(agents):  # nsenter, which comes first, stops itself while its child is stopped
            one.send(signal.SIGCONT)
        witness.usable(host)


@contextmanager
def without_libvirtd(witness: Witness, host: str) -> Iterator[None]:
    witness.cloud.lab.stop_libvirtd(host)
    try:
        assert wait_for(lambda: not witness.answers(host), DOWN_S)
        yield
    finally:
        witness.cloud.lab.start_libvirtd(host)
        witness.usable(host)


Trouble = Callable[[Witness, str], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (disabled, "{host} cannot take it: it is disabled: new fans"),
        (full, "{host} cannot take it: disk: 1 GiB wanted, 0 GiB free"),
        (without_agent, "{host} cannot take it: it is down: it has made no progress for"),
        (without_libvirtd, "{host} cannot take it: its hypervisor does not answer"),
    ],
)
def test_a_destination_that_cannot_take_the_guest(witness: Witness, ada: str, trouble: Trouble, words: str) -> None:
    source = witness.compute.host_of(ada)
    host = witness.other_than(source)
    with trouble(witness, host):
        is_refused(witness, ada, host, words.format(host=host))
        # Without a name the scheduler looks for one, and gives the reason of each host.
        status, body = witness.compute.act(ada, {"os-migrateLive": {"host": None, "block_migration": "auto"}}, "2.30")
        reason = words.format(host=host).removeprefix(f"{host} cannot take it: ")
        assert status == 400
        assert "No valid host was found" in body["badRequest"]["message"]
        assert f"{host}: {reason}" in body["badRequest"]["message"]
        assert f"{source}: it runs there already" in body["badRequest"]["message"]
        witness.is_resting(ada, "ACTIVE", source)


def test_the_destination_where_it_runs_already(witness: Witness, ada: str) -> None:
    source = witness.compute.host_of(ada)
    is_refused(witness, ada, source, f"{source} is where the instance already runs; name another host, or none")


@pytest.mark.parametrize("version", ["2.30", "2.67", "2.96"])
def test_a_destination_that_nobody_knows(witness: Witness, ada: str, version: str) -> None:
    """The caller's mistake at every version: there is no migration to be shown as failed."""
    source, before = witness.compute.host_of(ada), witness.compute.migrations(ada)
    status, body = witness.compute.act(ada, {"os-migrateLive": {"host": "h9", "block_migration": "auto"}}, version)
    assert (status, body["badRequest"]["message"]) == (400, "Compute host h9 could not be found.")
    assert witness.compute.migrations(ada) == before
    witness.is_resting(ada, "ACTIVE", source)


def is_refused(witness: Witness, server: str, host: str, words: str) -> None:
    """Up to 2.33 by the answer, from 2.34 on by the migration; the server stays as it was."""
    source = witness.compute.host_of(server)
    asked = {"os-migrateLive": {"host": host, "block_migration": "auto"}}
    status, body = witness.compute.act(server, asked, "2.30")
    assert status == 400
    assert words in body["badRequest"]["message"]
    witness.is_resting(server, "ACTIVE", source)
    assert witness.compute.migrations(server)[0]["status"] == "error"

    status, _ = witness.compute.act(server, asked)
    assert status == 202
    migration = witness.compute.wait_migrated(server)
    assert migration["status"] == "error"
    witness.compute.wait(server, "ACTIVE")
    witness.is_resting(server, "ACTIVE", source)
    newest = witness.compute.must("GET", "/droveway/v1/sagas?all=1&limit=1")["sagas"][0]
    assert newest["subject_id"] == server
    assert words in newest["error"]


# -- servers that cannot be made --------------------------------------------------------------------------------------
def test_a_flavor_that_no_host_can_take(witness: Witness) -> None:
    witness.flavor("huge", ram_mb=64 * 1024 * 1024)
    server = witness.create("huge", "huge")
    reason = witness.fault(server)
    assert reason.startswith("No valid host was found: ")
    for host, found in witness.hypervisors().items():
        assert f"{host}: memory: {64 * 1024 * 1024} MiB wanted, {found['free_ram_mb']} MiB free" in reason
    assert witness.compute.server(server)["OS-EXT-SRV-ATTR:host"] is None
    witness.delete(server)
    witness.compute.must("DELETE", f"{COMPUTE}/flavors/huge")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"flavorRef": "colossal"}, "Flavor colossal could not be found."),
        ({"imageRef": "5d6a94d2-4ea1-4e3d-9a9a-2c5d7c9a6e11"}, "5d6a94d2-4ea1-4e3d-9a9a-2c5d7c9a6e11"),
    ],
)
def test_an_unknown_flavor_or_image(witness: Witness, changed: dict[str, str], words: str) -> None:
    server = {"name": "nobody", "imageRef": witness.image, "flavorRef": "tiny", "networks": "none", **changed}
    status, body = witness.compute.call("POST", f"{COMPUTE}/servers", {"server": server})
    assert status == 400
    assert words in body["badRequest"]["message"]


def test_an_unknown_host_at_create(witness: Witness) -> None:
    server = {"name": "nobody", "imageRef": witness.image, "flavorRef": "tiny", "networks": "none", "host": "h9"}
    status, body = witness.compute.call("POST", f"{COMPUTE}/servers", {"server": server})
    assert status == 400
    assert "h9" in body["badRequest"]["message"]


def test_no_libvirtd_at_boot_time(witness: Witness) -> None:
    with without_libvirtd(witness, "h1"), without_libvirtd(witness, "h2"):
        server = witness.create("early")
        assert witness.fault(server) == (
            "No valid host was found: h1: its hypervisor does not answer; h2: its hypervisor does not answer"
        )
    witness.delete(server)
    later = witness.create("later")
    witness.compute.wait(later, "ACTIVE")
    witness.settled()


def test_libvirtd_goes_away_unseen_just_before_the_boot(witness: Witness) -> None:
    """Nobody knows yet that it has gone: the boot says what it waits for, and goes on when it is back."""
    witness.cloud.lab.stop_libvirtd("h2")
    server = witness.create("patient", host="h2")
    assert wait_for(lambda: witness.compute.server(server)["status"] in {"BUILD", "ERROR"}, 30)
    witness.cloud.lab.start_libvirtd("h2")
    found = witness.compute.server(server)
    if found["status"] != "ERROR":  # the host's word was slower than the scheduler
        witness.compute.wait(server, "ACTIVE")
    witness.usable("h2")
    witness.settled()


# -- what is not refused ----------------------------------------------------------------------------------------------
def test_a_guest_that_powers_itself_off(witness: Witness) -> None:
    server = witness.booted("sleepy")
    host = witness.cloud.lab.host(witness.compute.host_of(server))

    def is_off() -> bool:
        """Pressed again while it is on: a busy guest has no button before its modules are loaded."""
        host.run("virsh", "-q", "-c", "qemu:///system", "shutdown", server)
        return wait_for(lambda: witness.compute.server(server)["status"] == "SHUTOFF", 2.0)

    witness.wait(is_off, BOOTS_S, "the guest is off")
    witness.compute.wait(server, "SHUTOFF")
    witness.settled()
    status, _ = witness.compute.act(server, {"os-start": None})
    assert status == 202
    witness.compute.wait(server, "ACTIVE")
    witness.comes_up(server, 2)


def test_a_second_agent_of_the_same_host(witness: Witness, ada: str) -> None:
    """On the host itself its lock refuses it; from elsewhere, control does, and the first one serves on."""
    agents = [one for one in witness.processes_of("agent", "h1") if "nsenter" not in one.command()[0]]
    (agent,) = [one for one in agents if "--service" not in one.command()]  # compute's
    host = witness.cloud.lab.host("h1")
    words = [word for word in agent.command() if word != "--supervised"]
    second = host.run(*words[: words.index("--config") + 2], timeout_s=20)
    assert second.returncode == 1
    assert second.stderr == "droveway: another agent of host h1 is running; it must end first\n"

    elsewhere = witness.cloud.home / "elsewhere.toml"
    elsewhere.write_text(witness.cloud.config.read_text().replace("/hosts/h1", "/hosts/h1-too"))
    said = witness.cloud.home / "elsewhere.said"
    with said.open("wb") as into:
        command = host.command(
            "timeout", f"{SOON_S:.0f}", *words[: words.index("--config")], "--config", str(elsewhere)
        )
        refused = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=into, stderr=into)
    try:
        assert wait_for(lambda: "nova-compute on host h1 is taken by the agent at" in said.read_text(), SOON_S)
    finally:
        for one in everyone():  # nsenter, which we have started, does not pass signals on
            if str(elsewhere) in one.command():
                one.send(signal.SIGTERM)
        refused.wait(SOON_S)
    assert agent.is_alive()
    assert witness.services()["h1"]["word"] == "up"
