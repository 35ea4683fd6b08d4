"""The lab keeps what it promises: hosts that look like hosts, and nothing left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import network, registry
from lab.hosts import HERE, Host, Lab, LabFailed, obstacle
from lab.processes import end, in_network, process, wait_for, with_environment

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "lab")
    try:
        yield made
    finally:
        made.down()


def left_of(lab: Lab) -> list[str]:
    """Everything on the machine that carries the lab's id or lives in its namespaces."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    held = [network.path(name) for name in network.names(f"dw-{lab.id}")]
    return (
        [str(path) for path in held]
        + [one.name() for one in in_network(held)]
        + [line for line in mounts if f"dw-{lab.id}" in line or str(lab.directory) in line]
        + [line for line in links if lab.id in line]
        + [str(path) for path in registry.ENTRIES.glob(lab.id)]
    )


def virsh(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return host.run("virsh", "-q", "-c", "qemu:///system", *words)


def test_down_leaves_nothing_and_twice_is_harmless(lab: Lab) -> None:
    host = lab.up(hosts=1)[0]
    sleeper = subprocess.Popen(host.command("sleep", "1000"))
    assert wait_for(lambda: host.run("pidof", "sleep").returncode == 0, 30)
    assert left_of(lab)
    lab.up(hosts=1)
    assert Lab(lab.directory).host("h1").init == host.init

    lab.down()
    assert sleeper.wait(5) != 0
    assert left_of(lab) == []
    lab.down()
    assert left_of(lab) == []


def test_two_labs_do_not_meet(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other")
    try:
        lab.up(hosts=1)
        other.up(hosts=1)
        assert lab.id != other.id
        lab.down()
        assert left_of(lab) == []
        assert other.host("h1").answers()
    finally:
        other.down()
    assert left_of(other) == []


def test_hosts_differ_where_hosts_differ_and_share_the_shared_store(lab: Lab) -> None:
    first, second = lab.up(hosts=2)
    assert [first.run("hostname").stdout, second.run("hostname").stdout] == ["h1\n", "h2\n"]
    assert first.boot_id() != second.boot_id()
    assert first.run("cat", first.boot_id_path).stdout.strip() == first.boot_id()
    identities = {virsh(host, "capabilities").stdout.split("<uuid>")[1][:36] for host in (first, second)}
    assert len(identities) == 2

    (lab.shared / "word").write_text("the same everywhere")
    assert second.run("cat", str(lab.shared / "word")).stdout == "the same everywhere"
    first.run("touch", str(first.instances / "mine"))
    assert first.run("ls", str(first.instances)).stdout == "mine\n"
    assert second.run("ls", str(second.instances)).stdout == ""

    assert first.run("virsh", "-q", "-c", second.peer_uri, "hostname").stdout.strip() == "h2"
    libvirt_from_outside = ["virsh", "-q", "-c", first.outside_uri(), "hostname"]
    assert subprocess.run(libvirt_from_outside, capture_output=True, text=True, check=False).stdout.strip() == "h1"


@pytest.mark.alone  # how soon is asked
def test_libvirtd_comes_back_unless_it_is_held(lab: Lab) -> None:
    host = lab.up(hosts=1)[0]
    first = host.libvirtd
    assert first is not None

    lab.kill_libvirtd("h1")
    assert not first.is_alive()
    began = time.monotonic()
    assert wait_for(lambda: host.libvirtd not in (None, first), 30)
    assert time.monotonic() - began < 0.5
    lab.wait()

    lab.stop_libvirtd("h1")
    time.sleep(0.3)
    assert host.libvirtd is None
    assert not host.answers()
    lab.start_libvirtd("h1")
    assert virsh(host, "hostname").stdout.strip() == "h1"


def test_power_failure_ends_everything_on_the_host_and_it_boots_afresh(lab: Lab) -> None:
    first, second = lab.up(hosts=2)
    boot_id = first.boot_id()
    first.run("touch", "/run/forgotten", "/var/lib/libvirt/kept")
    inside = subprocess.Popen(first.command("sleep", "1000"), start_new_session=True)

    lab.power_off("h1", silent=True)
    assert inside.wait(5) != 0
    assert first.init is None
    assert in_network([network.path(first.netns)]) == []
    assert second.answers()
    assert first.run("true").returncode == 69
    with pytest.raises(LabFailed, match=r"host h1 of .* is not running"):
        first.boot_id()

    lab.power_on("h1")
    assert first.boot_id() != boot_id
    assert first.run("ls", "/run/forgotten").returncode != 0
    assert first.run("ls", "/var/lib/libvirt/kept").returncode == 0
    assert second.run("virsh", "-q", "-c", first.peer_uri, "hostname").stdout.strip() == "h1"


def test_what_is_entered_ends_with_its_process_group(lab: Lab) -> None:
    host = lab.up(hosts=1)[0]
    entered = subprocess.Popen(host.command("sleep", "1000"), start_new_session=True)
    assert wait_for(lambda: host.run("pidof", "sleep").returncode == 0, 30)
    os.killpg(entered.pid, signal.SIGKILL)
    entered.wait(5)
    assert wait_for(lambda: host.run("pidof", "sleep").returncode != 0, 30)


def test_orphans_are_reaped(lab: Lab) -> None:
    host = lab.up(hosts=1)[0]
    host.run("sh", "-c", "for i in 1 2 3; do setsid --fork sleep 0.05; done")
    assert wait_for(lambda: "sleep" not in host.run("ps", "-e", "-o", "comm=").stdout, 30)


def interrupt_up(lab: Lab, after_s: float) -> None:
    command = [sys.executable, "-m", "lab", "up", "--dir", str(lab.directory)]
    started = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(after_s)
    started.send_signal(signal.SIGINT)
    started.communicate(timeout=20)


@pytest.mark.matrix
@pytest.mark.parametrize("after_s", [0.06, 0.09, 0.12])
def test_an_interrupted_up_is_finished_by_the_next(lab: Lab, after_s: float) -> None:
    interrupt_up(lab, after_s)
    assert [host.answers() for host in lab.up()] == [True, True]


@pytest.mark.matrix
@pytest.mark.parametrize("after_s", [0.06, 0.09, 0.12])
def test_an_interrupted_up_is_undone_by_down(lab: Lab, after_s: float) -> None:
    interrupt_up(lab, after_s)
    lab.down()
    time.sleep(0.3)  # a host that was on its way when `up` was interrupted would be there by now
    assert left_of(lab) == []


def test_sweep_takes_labs_whose_directory_is_gone_and_no_other(lab: Lab, tmp_path: Path) -> None:
    lost = Lab(tmp_path / "lost")
    lab.up(hosts=1)
    lost.up(hosts=1)
    lost.directory.rename(tmp_path / "moved")
    said = registry.sweep()
    assert any(lost.id in reason for reason in said)
    assert left_of(lost) == []
    assert lab.host("h1").answers()


def test_a_recorded_pid_that_went_to_another_process_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], env={**os.environ, "DROVEWAY_TEST": str(tmp_path)})
    try:
        now = process(stranger.pid)
        assert now is not None
        earlier = now._replace(started_ticks=now.started_ticks - 1)
        assert not earlier.is_alive()
        earlier.send(signal.SIGKILL)
        assert stranger.poll() is None
        assert with_environment(f"DROVEWAY_TEST={tmp_path}") == [now]
        assert end(lambda: with_environment(f"DROVEWAY_TEST={tmp_path}"), signal.SIGTERM, 5)
    finally:
        stranger.kill()
        stranger.wait(30)
