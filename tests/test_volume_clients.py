"""Volumes of servers with the unmodified `openstack` command, against real processes: control with its API, a host of
imagined guests, and a volume service whose volumes are files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import servers
from lab.client import Client
from lab.processes import wait_for
from tests.openstack_process import OpenstackProcess

SOON_S = 60.0
SERVICES = ("nova-compute", "cinder-volume@files")


class Cloud:
    def __init__(self, home: Path) -> None:
        self.home, self.file, self.log = home, home / "droveway.toml", home / "log"
        (home / "volumes").mkdir()
        (port,) = servers.free_ports(1)
        self.file.write_text(
            f'state_path = "{home}"\nreport_interval = 0.25\nservice_down_time = 3.0\n'
            f'[api]\nlisten = "127.0.0.1:{port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
            f'[[host]]\nname = "h1"\nhypervisor = "simulated"\nhost_state_path = "{home}/h1"\n'
            'services = ["nova-compute", "cinder-volume@files"]\n'
            f'[[host.backend]]\nname = "files"\ndriver = "dir"\npath = "{home}/volumes"\n'
        )
        self._running: list[subprocess.Popen[bytes]] = []
        self._start("control")
        client = Client(port)
        assert wait_for(client.answers, SOON_S), self.log.read_text()
        client.log_in(home / "clouds.yaml")
        self._start("heart")
        for service in SERVICES:
            self._start("agent", "--host", "h1", "--service", service)
        self._shell = OpenstackProcess(home / "clouds.yaml")
        self.cli = self._shell.run
        assert wait_for(self._is_whole, SOON_S), self.log.read_text()

    def _is_whole(self) -> bool:
        found = [*self.cli("compute", "service", "list"), *self.cli("volume", "service", "list")]
        return {row["Binary"] for row in found if row["State"] == "up"} >= {"nova-compute", "cinder-volume"}

    def _start(self, *words: str) -> None:
        command = [sys.executable, "-m", "droveway.main", *words, "--config", str(self.file)]
        with self.log.open("ab") as log:
            self._running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"))

    def until(self, kind: str, one: str, status: str) -> dict[str, Any]:
        deadline_s = time.monotonic() + SOON_S
        while time.monotonic() < deadline_s:
            found: dict[str, Any] = self.cli(*kind.split(), "show", one)
            if found["status"] == status:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{one} is {found['status']}: {found}; {self.log.read_text()[-3000:]}")

    def volumes_of(self, server: str) -> list[str]:
        return [one["id"] for one in self.cli("server", "show", server)["volumes_attached"]]

    def end(self) -> None:
        self._shell.close()
        for process in self._running:
            process.kill()
            process.wait(SOON_S)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("volumes"))
    try:
        image = made.home / "tiny.raw"
        image.write_bytes(b"\0" * 4096)
        for name, flavor in (("tiny", ("--ram", "128", "--disk", "1", "--vcpus", "1")),):
            made.cli("flavor", "create", f"own-{name}", *flavor)
        made.cli("image", "create", "tiny", "--disk-format", "raw", "--file", str(image))
        yield made
    finally:
        made.end()


def new_server(cloud: Cloud, name: str, *more: str) -> str:
    made = cloud.cli("server", "create", name, "--flavor", "own-tiny", "--nic", "none", *more)
    return str(made["id"])


def test_volumes_are_added_to_a_server_and_removed(cloud: Cloud) -> None:
    cli = cloud.cli
    volume = cli("volume", "create", "one", "--size", "1")["id"]
    cloud.until("volume", volume, "available")
    server = new_server(cloud, "plain", "--image", "tiny")
    cloud.until("server", server, "ACTIVE")
    cli("server", "add", "volume", server, volume)
    shown = cloud.until("volume", volume, "in-use")
    (attachment,) = shown["attachments"]
    assert (attachment["server_id"], attachment["device"]) == (server, "/dev/vdb")
    assert cloud.volumes_of(server) == [volume]
    (listed,) = cli("server", "volume", "list", server)
    assert listed["Volume ID"] == volume
    refused = cli("server", "add", "volume", server, volume, fails=True)
    assert "attached to this server already" in refused or "must be 'available'" in refused
    refused = cli("volume", "delete", volume, fails=True)
    assert "attached" in refused or "in-use" in refused
    cli("server", "remove", "volume", server, volume)
    cloud.until("volume", volume, "available")
    assert cloud.volumes_of(server) == []
    cli("server", "delete", "--wait", server)
    cli("volume", "delete", volume)


def test_servers_begin_from_volumes_in_each_way_of_saying_it(cloud: Cloud) -> None:
    cli = cloud.cli
    ready = cli("volume", "create", "ready", "--size", "1", "--image", "tiny")["id"]
    cloud.until("volume", ready, "available")
    by_volume = new_server(cloud, "by-volume", "--volume", ready)
    made = new_server(cloud, "made", "--image", "tiny", "--boot-from-volume", "2")
    extra = cli("volume", "create", "extra", "--size", "1")["id"]
    cloud.until("volume", extra, "available")
    both = new_server(cloud, "both", "--image", "tiny", "--block-device", f"uuid={extra},source_type=volume")
    for server in (by_volume, made, both):
        cloud.until("server", server, "ACTIVE")
    assert cloud.volumes_of(by_volume) == [ready] and cloud.volumes_of(both) == [extra]
    (own,) = cloud.volumes_of(made)
    shown = cloud.until("volume", own, "in-use")
    assert (shown["size"], shown["bootable"]) == (2, True)
    refused = cli("server", "remove", "volume", by_volume, ready, fails=True)
    assert "Cannot detach a root device volume" in refused
    for server in (by_volume, made, both):
        cli("server", "delete", "--wait", server)
    for volume in (ready, extra, own):
        cloud.until("volume", volume, "available")
        cli("volume", "delete", volume)
