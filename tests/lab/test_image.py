"""The guest image on a lab host: it boots, its ticks are what they must be, and it obeys the power button."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import image
from lab.hosts import Host, Lab, obstacle
from lab.processes import wait_for

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
WORDS = 4 * 1024 * 1024 // 8
MASK = 2**64 - 1

DOMAIN = """
<domain type='qemu'><name>tiny</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/></disk>
    <serial type='pty'><log file='{console}'/></serial><console type='pty'/>
  </devices>
</domain>
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    lab = Lab(tmp_path / "lab", cache=image.CACHE)
    try:
        yield lab.up(hosts=1)[0]
    finally:
        lab.down()


def checksum(tick: int) -> str:
    """What the guest must say, computed as its tick.c does."""
    state = (tick + 1) * 0x9E3779B97F4A7C15 & MASK | 1
    total = 0
    for _ in range(WORDS):
        state ^= state << 13 & MASK
        state ^= state >> 7
        state ^= state << 17 & MASK
        total = total * 31 + state & MASK
    return f"{total:016x}"


def test_it_boots_ticks_and_powers_off(host: Host, tmp_path: Path) -> None:
    disk, console, domain = tmp_path / "disk", tmp_path / "console", tmp_path / "domain.xml"
    backing = ["-b", str(image.image()), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk), "64M"], check=True)
    domain.write_text(DOMAIN.format(disk=disk, console=console))
    created = host.run("virsh", "-q", "-c", "qemu:///system", "create", str(domain))
    assert created.returncode == 0, created.stderr

    def said() -> str:
        return console.read_text(errors="replace") if console.exists() else ""

    assert wait_for(lambda: "BOOTED" in said(), 150), said()
    assert wait_for(lambda: "tick 2 " in said(), 30), said()
    assert re.findall(r"tick (\d+) (\w+) (\w+)", said())[:2] == [
        ("0", checksum(0), "ok"),
        ("1", checksum(1), "ok"),
    ]

    host.run("virsh", "-q", "-c", "qemu:///system", "shutdown", "tiny")
    assert wait_for(lambda: host.run("pidof", "qemu-system-x86_64").returncode != 0, 30)


def test_an_interrupted_build_leaves_nothing_half_done(tmp_path: Path) -> None:
    made = image.image()  # the download is kept: only the build is done again below
    kernel = next(made.parent.glob("kernel-*"))
    shutil.copytree(kernel, tmp_path / kernel.name)
    (tmp_path / ".building-interrupted").mkdir()
    again = image.image(tmp_path)
    assert again.name == made.name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kernel.name, "lock", again.name])
