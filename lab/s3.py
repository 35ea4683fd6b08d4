"""A server that speaks S3: Ceph's own gateway, on a cluster of lab/ceph.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from droveway.drivers.backups.s3 import S3Backups, S3Settings
from droveway.drivers.clock import SystemClock
from lab.ceph import STEP_S, Ceph
from lab.nodes import Node, ServerFailed, free_ports
from lab.servers import listens, must_be_installed

BUCKET = "backups"


class Gateway:
    """`settings`: as who makes backups is told."""

    def __init__(self, node: Node, settings: S3Settings) -> None:
        self.node, self.settings = node, settings

    def stop(self) -> None:
        self.node.end(signal.SIGKILL)

    def start(self) -> None:
        self.node.begin()
        self.node.wait()


@contextlib.contextmanager
def server(cluster: Ceph, directory: Path) -> Iterator[Gateway]:
    must_be_installed("radosgw")
    (port,) = free_ports(1)
    home = directory / "gateway"
    home.mkdir()
    user = ("--conf", str(cluster.conf), "--name", "client.admin")
    command = [
        "radosgw",
        *user,
        "-f",
        "--rgw-frontends",
        f"beast endpoint=127.0.0.1:{port}",
        "--rgw-thread-pool-size=16",
    ]
    node = Node(home, port, command, listens)
    made = _user(user)
    settings = S3Settings(f"http://127.0.0.1:{port}", BUCKET, made["access_key"], made["secret_key"])
    gateway = Gateway(node, settings)
    try:
        gateway.start()
        asyncio.run(_make_bucket(settings))
        yield gateway
    finally:
        gateway.stop()


async def _make_bucket(settings: S3Settings) -> None:
    objects = S3Backups(settings, SystemClock())
    await objects.make_bucket()
    await objects.close()


def _user(as_admin: tuple[str, ...]) -> dict[str, str]:
    command = ("radosgw-admin", *as_admin, "user", "create", "--uid", "backups", "--display-name", "backups")
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_S, check=False)
    if done.returncode and "exists" in done.stderr:
        command = ("radosgw-admin", *as_admin, "user", "info", "--uid", "backups")
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_S, check=False)
    if done.returncode:
        raise ServerFailed(f"radosgw-admin: {done.stderr[-500:]}")
    found: dict[str, str] = json.loads(done.stdout)["keys"][0]
    return found
