"""What a guest gets of a disk in Ceph: ours, by libvirt and the XML of the program, beside a QEMU that is started by
hand with the options that were best for it (no host cache, discards passed on), on the same host, in turn.

Both guests run the same program (io.c) whenever they are given a disk, and say on their console how long it took.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, median, progress
from lab.cloud import Cloud
from lab.compute import Compute
from lab.hosts import Host
from lab.image import image
from lab.processes import wait_for
from lab.storage import POOL

NOVA, CINDER = "/compute/v2.1", "/volume/v3"
PAIRS, RATIO_BAR = 10, 0.95
SIZE_GB = 2  # no other disk of the guest is so large
BOOTS_S, ROUND_S, LOOK_S = 120.0, 120.0, 0.1
NODE, TWIN = "measured", "bare-io"
KINDS = ("sequential writes", "sequential reads", "random reads of 4 KiB", "random writes of 4 KiB")
_SAID = re.compile(r"IO (\d+) (\d+) (\d+) (\d+) done")
SCRIPT = """#!/bin/sh
(
echo {program} | base64 -d >/tmp/io; chmod +x /tmp/io
while :; do
    for disk in /sys/block/vd*; do
        [ "$(cat $disk/size 2>/dev/null)" = {sectors} ] || continue
        sleep 2 # until whoever gave it that is at rest again
        ln -sf /dev/${{disk##*/}} /tmp/disk
        /tmp/io >/dev/console
        while [ -e $disk ]; do sleep 0.2; done
    done
    sleep 0.2
done
) &
"""
COMPILED = (
    *("-static", "-nostdlib", "-Os", "-fno-builtin", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-s"),
    *("-fno-pie", "-no-pie", "-Wl,-n,-z,noseparate-code,--build-id=none"),
)


def measure(cloud: Cloud, compute: Compute) -> Iterator[Claim]:
    server = _server(compute)
    host = cloud.lab.host(compute.host_of(server))
    ours = _Ours(cloud, compute, server)
    with tempfile.TemporaryDirectory(prefix="dw-io-") as directory:
        bare = _Bare(cloud, host, server, Path(directory))
        try:
            rounds = _pairs(ours, bare)
        finally:
            bare.end()
    compute.delete(server)
    for number, kind in enumerate(KINDS):
        own, bare_ones = ([one[number] / 1e6 for one in found] for found in rounds)
        own_ms, bare_ms = median(own), median(bare_ones)
        note = (
            f"bare QEMU {bare_ms:.0f} ms (least {min(bare_ones):.0f}), ours {own_ms:.0f} ms (least {min(own):.0f}); "
            f"medians of {PAIRS} in turn"
        )
        yield Claim(f"{kind} in a guest on RBD, speed over bare QEMU", bare_ms / own_ms, RATIO_BAR, "x", note, True)


def _pairs(ours: _Ours, bare: _Bare) -> tuple[list[list[int]], list[list[int]]]:
    """Nanoseconds of each kind. The first pair, which makes the objects, does not count."""
    rounds: tuple[list[list[int]], list[list[int]]] = ([], [])
    for pair in range(PAIRS + 1):
        progress(f"a disk under load, pair {pair} of {PAIRS}")
        for which in (0, 1) if pair % 2 else (1, 0):
            took = (ours, bare)[which].round()
            if pair:
                rounds[which].append(took)
    return rounds


def _server(compute: Compute) -> str:
    source = Path(__file__).with_name("io.c")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "io"
        subprocess.run(["gcc", *COMPILED, "-o", str(target), str(source)], check=True, timeout=60)
        program = base64.b64encode(target.read_bytes()).decode()
    script = base64.b64encode(SCRIPT.format(program=program, sectors=SIZE_GB << 21).encode()).decode()
    server = compute.create("reads", compute.image_id(), config_drive=True, user_data=script)
    compute.wait(server, "ACTIVE")
    return server


def _last(text: str, count: int) -> list[int]:
    """What it said the last time, if that is so many times by now."""
    assert "IO failed" not in text, text[-500:]
    found = _SAID.findall(text)
    return [int(word) for word in found[-1]] if len(found) == count else []


class _Ours:
    def __init__(self, cloud: Cloud, compute: Compute, server: str) -> None:
        self._compute, self._server, self._rounds = compute, server, 0
        made = compute.must("POST", f"{CINDER}/volumes", {"volume": {"size": SIZE_GB}})["volume"]["id"]
        self._volume, self._log = str(made), cloud.log
        self._until("available")
        assert wait_for(lambda: "BOOTED" in self._console(), BOOTS_S, LOOK_S), f"it has not booted; see {cloud.log}"
        time.sleep(5)  # until it waits for a disk

    def _console(self) -> str:
        body = {"os-getConsoleOutput": {"length": None}}
        return str(self._compute.must("POST", f"{NOVA}/servers/{self._server}/action", body)["output"])

    def _until(self, wanted: str) -> None:
        def is_so() -> bool:
            return bool(self._compute.must("GET", f"{CINDER}/volumes/{self._volume}")["volume"]["status"] == wanted)

        assert wait_for(is_so, ROUND_S, LOOK_S), f"its volume is not {wanted}; see {self._log}"

    def round(self) -> list[int]:
        path = f"{NOVA}/servers/{self._server}/os-volume_attachments"
        self._compute.must("POST", path, {"volumeAttachment": {"volumeId": self._volume}})
        self._rounds += 1
        found: list[int] = []

        def is_over() -> bool:
            found[:] = _last(self._console(), self._rounds)
            return bool(found)

        assert wait_for(is_over, ROUND_S, 1.0), f"it does not say how fast its disk is: {self._console()[-300:]}"
        self._compute.must("DELETE", f"{path}/{self._volume}")
        self._until("available")
        return found


class _Bare:
    """Its image is that of our guest, which it changes in memory alone, and it is told what our guest is told."""

    def __init__(self, cloud: Cloud, host: Host, server: str, directory: Path) -> None:
        self._directory, self._rounds = directory, 0
        self._cluster = cloud.storage.ceph()
        self._cluster.ask("rbd", "create", f"{POOL}/{TWIN}", "--size", f"{SIZE_GB}G")
        xml = host.run("virsh", "-q", "-c", "qemu:///system", "dumpxml", server).stdout
        drive = re.findall(r"<source file='([^']*disk\.config[^']*)'", xml)[0]
        machine = re.findall(r"machine='([^']*)'", xml)[0]
        command = (
            *("qemu-system-x86_64", "-machine", f"{machine},accel=tcg", "-m", "128", "-smp", "1", "-display", "none"),
            *("-nodefaults", "-serial", f"file:{directory}/console", "-qmp", f"unix:{directory}/qmp,server,nowait"),
            *("-drive", f"file={image()},if=virtio,format=qcow2,snapshot=on"),
            *("-drive", f"file={drive},if=virtio,format=raw,readonly=on"),
        )
        with (directory / "words").open("wb") as words:
            self._process = subprocess.Popen(
                host.command(*command), stdin=subprocess.DEVNULL, stdout=words, stderr=words, cwd="/"
            )
        self._console = directory / "console"
        up = wait_for(lambda: self._console.exists() and "BOOTED" in self._said(), BOOTS_S, LOOK_S)
        assert up, (directory / "words").read_text()
        self._qmp = _Qmp(directory / "qmp")
        time.sleep(5)

    def _said(self) -> str:
        return self._console.read_text(errors="replace")

    def round(self) -> list[int]:
        disk = {"driver": "rbd", "pool": POOL, "image": TWIN, "conf": str(self._cluster.conf), "user": "admin"}
        how = {"cache": {"direct": True, "no-flush": False}, "discard": "unmap"}
        self._qmp.do("blockdev-add", driver="raw", **{"node-name": NODE}, file={**disk, **how}, **how)
        self._qmp.do("device_add", driver="virtio-blk-pci", id=NODE, drive=NODE)
        self._rounds += 1
        found: list[int] = []

        def is_over() -> bool:
            found[:] = _last(self._said(), self._rounds)
            return bool(found)

        assert wait_for(is_over, ROUND_S, 1.0), f"it does not say how fast its disk is: {self._said()[-300:]}"
        self._qmp.do("device_del", id=NODE)
        self._qmp.until_gone(NODE)
        self._qmp.do("blockdev-del", **{"node-name": NODE})
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class _Qmp:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ROUND_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._gone: set[str] = set()
        json.loads(self._lines.readline())
        self.do("qmp_capabilities")

    def do(self, command: str, **arguments: Any) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            assert "error" not in answer, f"{command}: {answer}"
            if "return" in answer:
                return
            self._note(answer)

    def _note(self, said: dict[str, Any]) -> None:
        if said.get("event") == "DEVICE_DELETED":
            self._gone.add(said["data"].get("device", ""))

    def until_gone(self, device: str) -> None:
        while device not in self._gone:
            self._note(json.loads(self._lines.readline()))
        self._gone.clear()
