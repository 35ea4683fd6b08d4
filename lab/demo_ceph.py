"""`./dev demo --storage ceph`: disks in a real Ceph, told line by line on hosts that share nothing but that.

A server begins from a volume and writes to a second one; snapshots, a move of both, an OSD that is killed under them,
and a backup that brings back what was overwritten. A server of an image beside it: its root disk is a clone in Ceph.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from lab.compute import ticks
from lab.demo import TICKS_S, Story, must
from lab.login import Login, command
from lab.processes import wait_for
from lab.quickstart import INSIDE, KEY, NETWORK
from lab.storage import ROOTS

VOLUME = "/volume/v3"
AVAILABLE_S, ANSWERS_S = 120.0, 60.0
OSD_AWAY_S = 5.0
DEVICE = "/dev/vdb"


class CephStory(Story):
    """`volumes`: by what they are to the story."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.volumes: dict[str, str] = {}
        self.address = ""

    def console(self, name: str) -> str:
        body = {"os-getConsoleOutput": {"length": None}}
        path = f"/compute/v2.1/servers/{self.servers[name]}/action"
        return str(self.compute.must("POST", path, body)["output"])

    def ticks(self, name: str) -> list[int]:
        return ticks(self.console(name))

    def arrives(self, name: str, before: int) -> int:
        """Each host has a console of its own, which begins anew with the arrival of a guest. The last tick."""
        must(wait_for(lambda: bool(self.ticks(name)), TICKS_S), f"{name} says nothing")
        first = self.ticks(name)[0]
        must(first > before, f"{name} went back from tick {before} to {first}")
        return self.goes_on(name)

    def status(self, kind: str, one: str) -> str:
        return str(self.compute.must("GET", f"{VOLUME}/{kind}/{one}")[kind[:-1]]["status"])

    def until(self, kind: str, one: str, status: str) -> float:
        """How long it took, in milliseconds."""
        began = time.monotonic()
        settled = wait_for(lambda: self.status(kind, one) in (status, "error"), AVAILABLE_S)
        must(settled and self.status(kind, one) == status, f"{kind[:-1]} {one} is {self.status(kind, one)}")
        return (time.monotonic() - began) * 1000

    def make(self, kind: str, **more: Any) -> str:
        return str(self.compute.must("POST", f"{VOLUME}/{kind}", {kind[:-1]: more})[kind[:-1]]["id"])

    def inside(self, *words: str, timeout_s: float = ANSWERS_S) -> str:
        """What a command says in the guest that begins from a volume."""
        line = command(self.cloud, self.address, *words)
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, check=False)
        must(done.returncode == 0, f"{' '.join(words)} in the guest: {done.stderr.strip()[-200:]}")
        return done.stdout.strip()

    def write(self, text: str) -> None:
        self.inside(f"echo {text} | dd of={DEVICE} bs=512 conv=sync,fsync 2>/dev/null")

    def read(self) -> str:
        """From the disk, and not from what the guest remembers of it."""
        self.inside("echo 3 >/proc/sys/vm/drop_caches")
        return self.inside(f"dd if={DEVICE} bs=512 count=1 2>/dev/null | head -n 1")

    # -- the lines ------------------------------------------------------------------------------------------------
    def ada_begins_from_a_volume(self) -> None:
        image = self.compute.image_id()
        network = self.compute.must("GET", f"{NETWORK}/networks?name={INSIDE}")["networks"][0]["id"]
        root = {"uuid": image, "source_type": "image", "destination_type": "volume", "volume_size": 1}
        root |= {"boot_index": 0, "delete_on_termination": True}
        body: dict[str, Any] = {"name": "ada", "flavorRef": "tiny", "networks": [{"uuid": network}], "key_name": KEY}
        began = time.monotonic()
        made = self.compute.must(
            "POST", "/compute/v2.1/servers", {"server": {**body, "block_device_mapping_v2": [root]}}
        )
        self.servers["ada"] = str(made["server"]["id"])
        server = self.compute.wait(self.servers["ada"], "ACTIVE")
        took_ms = (time.monotonic() - began) * 1000
        self.wait_for_tick("ada", 2)
        self.say(f"ada begins from a volume in Ceph: {took_ms:.0f} ms; she runs on {server['OS-EXT-SRV-ATTR:host']}")
        self.servers["bob"] = self.compute.create("bob", image)
        self.compute.wait(self.servers["bob"], "ACTIVE")
        self.wait_for_tick("bob", 2)
        disks = self._in_ceph("-p", ROOTS, "ls")
        must(f"{self.servers['bob']}_disk" in disks, f"bob's root disk is not in the pool: {disks}")
        parent = self._in_ceph("-p", ROOTS, "info", f"{self.servers['bob']}_disk")
        must("parent:" in parent, "bob's root disk is no clone")
        self.say(f"bob is made of an image: his root disk is a clone in the pool {ROOTS}, and nothing was copied")

    def _in_ceph(self, *words: str) -> str:
        return self.cloud.storage.ceph().ask("rbd", *words)

    def ada_gets_a_disk(self) -> None:
        self.volumes["data"] = self.make("volumes", size=1, name="data")
        self.until("volumes", self.volumes["data"], "available")
        path = f"/compute/v2.1/servers/{self.servers['ada']}/os-volume_attachments"
        began = time.monotonic()
        self.compute.must("POST", path, {"volumeAttachment": {"volumeId": self.volumes["data"]}})
        self.until("volumes", self.volumes["data"], "in-use")
        took_ms = (time.monotonic() - began) * 1000
        login = Login(self.cloud, self.say)
        self.address = login.address(login.server("ada"))
        login.wait_for_sshd("ada", self.address)
        must(wait_for(lambda: DEVICE in self.inside(f"ls {DEVICE} 2>&1; true"), ANSWERS_S), f"ada has no {DEVICE}")
        self.write("before")
        self.say(f"ada gets a second disk while she runs ({took_ms:.0f} ms) and writes to it")

    def a_snapshot_is_taken(self) -> None:
        snapshot = self.make("snapshots", volume_id=self.volumes["data"], name="then", force=True)
        took_ms = self.until("snapshots", snapshot, "available")
        self.volumes["snapshot"] = snapshot
        self.volumes["copy"] = self.make("volumes", size=1, snapshot_id=snapshot, name="copy")
        made_ms = self.until("volumes", self.volumes["copy"], "available")
        self.say(f"a snapshot of it while it is written: {took_ms:.0f} ms; a volume of that snapshot: {made_ms:.0f} ms")

    def a_backup_is_made(self) -> None:
        self.volumes["backup"] = self.make("backups", volume_id=self.volumes["data"], name="kept", force=True)
        took_ms = self.until("backups", self.volumes["backup"], "available")
        self.say(f"a backup of it: {took_ms:.0f} ms")

    def both_move(self) -> None:
        for name in ("ada", "bob"):
            source, before = self.compute.host_of(self.servers[name]), self.ticks(name)[-1]
            began = time.monotonic()
            self.compute.migrate(self.servers[name])
            migration = self.compute.wait_migrated(self.servers[name])
            took_ms = (time.monotonic() - began) * 1000
            must(migration["status"] == "completed", f"the migration of {name} ended as {migration['status']}")
            there = self.compute.wait(self.servers[name], "ACTIVE")["OS-EXT-SRV-ATTR:host"]
            must(there != source, f"{name} is still on {source}")
            last = self.arrives(name, before)
            self.say(f"{name} moved from {source} to {there} in {took_ms:.0f} ms; tick {last}, none missing")
        must(self.read() == "before", "what ada had written was not there after the move")
        self.say("the two hosts share no directory; ada reads there what she wrote")

    def the_osd_dies(self) -> None:
        """What the guests write waits, and is written when there is one again."""
        cluster = self.cloud.storage.ceph()
        osd = cluster.process("osd")
        assert osd is not None, "it runs"
        osd.send(signal.SIGKILL)
        killed = time.monotonic()
        line = command(self.cloud, self.address, f"echo during | dd of={DEVICE} bs=512 conv=sync,fsync 2>/dev/null")
        writing = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.goes_on("bob")
            time.sleep(max(0.0, killed + OSD_AWAY_S - time.monotonic()))
            must(writing.poll() is None, "a write ended although no disk of Ceph was there to take it")
            self.say("the OSD was killed with -9: both guests tick on without it, and a write of ada waits")
            self.cloud.storage.start()
            self.cloud.storage.wait()
            code = writing.wait(ANSWERS_S)
        finally:
            writing.kill()
            writing.wait()
        must(code == 0, "the write that waited for the OSD failed")
        must(self.read() == "during", "the write that waited is not on the disk")
        for name in ("ada", "bob"):
            self.goes_on(name)
        self.say(f"it is back after {time.monotonic() - killed:.1f} s: the write is on the disk, no tick is missing")

    def the_backup_is_restored(self) -> None:
        body = {"restore": {"name": "restored"}}
        made = self.compute.must("POST", f"{VOLUME}/backups/{self.volumes['backup']}/restore", body)["restore"]
        self.volumes["restored"] = str(made["volume_id"])
        took_ms = self.until("volumes", self.volumes["restored"], "available")
        path = f"/compute/v2.1/servers/{self.servers['ada']}/os-volume_attachments"
        must(self.compute.call("DELETE", f"{path}/{self.volumes['data']}")[0] == 202, "the disk is not taken back")
        self.until("volumes", self.volumes["data"], "available")
        self.compute.must("POST", path, {"volumeAttachment": {"volumeId": self.volumes["restored"]}})
        self.until("volumes", self.volumes["restored"], "in-use")
        must(wait_for(lambda: DEVICE in self.inside(f"ls {DEVICE} 2>&1; true"), ANSWERS_S), f"ada has no {DEVICE}")
        must(self.read() == "before", f"the restored volume does not hold what was backed up: {self.read()}")
        self.say(
            f"the backup is restored as a new volume ({took_ms:.0f} ms): ada reads there what was overwritten since"
        )

    def all_is_deleted(self) -> None:
        super().all_is_deleted()
        self._delete("snapshots", "snapshot")
        for name in ("data", "copy", "restored"):
            self.until("volumes", self.volumes[name], "available")
            self._delete("volumes", name)
        self._delete("backups", "backup")

    def _delete(self, kind: str, name: str) -> None:
        self.compute.must("DELETE", f"{VOLUME}/{kind}/{self.volumes[name]}")
        path = f"{VOLUME}/{kind}/{self.volumes[name]}"
        must(wait_for(lambda: self.compute.call("GET", path)[0] == 404, AVAILABLE_S), f"{name} is not deleted")

    def instance_files(self) -> list[str]:
        return [path.name for host in self.cloud.lab.hosts for path in (host.state / "instances").iterdir()]

    def nothing_is_left(self) -> None:
        super().nothing_is_left()
        images = {pool: self._in_ceph("-p", pool, "ls").split() for pool in (ROOTS, "volumes")}
        left = [one for found in images.values() for one in found if not one.startswith("image-")]
        must(not left, f"images are left in Ceph: {left}")
        self.say("left in Ceph: 0 disks, 0 volumes; the images that they were made of are kept a day")


def lines(story: CephStory) -> tuple[Callable[[], None], ...]:
    return (
        story.ada_begins_from_a_volume,
        story.ada_gets_a_disk,
        story.a_snapshot_is_taken,
        story.a_backup_is_made,
        story.both_move,
        story.the_osd_dies,
        story.the_backup_is_restored,
        story.all_is_deleted,
        story.nothing_is_left,
        story.the_cloud_ends,
    )
