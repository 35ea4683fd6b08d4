"""A cloud's servers as the demo, the tests and the benchmarks use them: plain HTTP on one kept connection."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

from lab.client import ApiFailed, Client

VERSION = "2.96"
WAIT_S = 60.0
IDLE_S = 2.0
TICK = re.compile(r"^tick (\d+) ([0-9a-f]+) ok\s*$")


class Compute:
    """Logs in with the admin of `clouds_yaml`. `call` gives (status, body); `must` insists on 2xx."""

    def __init__(self, port: int, clouds_yaml: Path) -> None:
        client = Client(port)
        client.log_in(clouds_yaml)
        self._port = port
        self.token = client.token
        self._connection: http.client.HTTPConnection | None = None
        self._used_s = 0.0

    def call(self, method: str, path: str, body: Any = None, version: str = VERSION) -> tuple[int, Any]:
        headers = {"x-auth-token": self.token, "openstack-api-version": f"compute {version}"}
        data = None
        if body is not None:
            data, headers["content-type"] = json.dumps(body), "application/json"
        if time.monotonic() - self._used_s > IDLE_S:
            self.close()  # the server may be about to close it
        for attempt in (1, 2):
            try:
                self._used_s = time.monotonic()
                if self._connection is None:
                    self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT_S)
                    self._connection.connect()
                    # The body follows the headers in a packet of its own: it must not wait for their receipt.
                    self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connection.request(method, path, data, headers)
                answer = self._connection.getresponse()
                text = answer.read()
                return answer.status, json.loads(text) if text else None
            except (OSError, http.client.HTTPException):
                self.close()  # the server may have restarted: reads are asked again once
                if attempt == 2 or method != "GET":
                    raise
        raise AssertionError("unreachable")

    def must(self, method: str, path: str, body: Any = None, version: str = VERSION) -> Any:
        status, answer = self.call(method, path, body, version)
        if not 200 <= status < 300:
            raise ApiFailed(f"{method} {path} was answered with {status}: {answer}")
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- servers --------------------------------------------------------------------------------------------------
    def image_id(self, name: str = "tiny") -> str:
        return str(self.must("GET", f"/image/v2/images?name={name}")["images"][0]["id"])

    def create(self, name: str, image_id: str, flavor: str = "tiny", **more: Any) -> str:
        server = {"name": name, "imageRef": image_id, "flavorRef": flavor, "networks": "none", **more}
        return str(self.must("POST", "/compute/v2.1/servers", {"server": server})["server"]["id"])

    def server(self, server_id: str) -> dict[str, Any]:
        return dict(self.must("GET", f"/compute/v2.1/servers/{server_id}")["server"])

    def host_of(self, server_id: str) -> str:
        return str(self.server(server_id)["OS-EXT-SRV-ATTR:host"])

    def wait(self, server_id: str, status: str, timeout_s: float = WAIT_S, pause_s: float = 0.02) -> dict[str, Any]:
        """Until the server has that status and nothing is being done to it. ERROR ends the wait at once."""
        deadline = time.monotonic() + timeout_s
        while True:
            server = self.server(server_id)
            if server["status"] == status and server["OS-EXT-STS:task_state"] is None:
                return server
            if server["status"] == "ERROR" and status != "ERROR":
                raise ApiFailed(f"server {server['name']} is in ERROR: {server.get('fault', {}).get('message')}")
            if time.monotonic() > deadline:
                raise ApiFailed(f"server {server['name']} is {server['status']} and not {status} after {timeout_s} s")
            time.sleep(pause_s)

    def delete(self, server_id: str) -> None:
        """And wait until it is gone."""
        self.must("DELETE", f"/compute/v2.1/servers/{server_id}")
        deadline = time.monotonic() + WAIT_S
        while self.call("GET", f"/compute/v2.1/servers/{server_id}")[0] != 404:
            if time.monotonic() > deadline:
                raise ApiFailed(f"server {server_id} is still there {WAIT_S} s after it was deleted")
            time.sleep(0.02)

    def act(self, server_id: str, action: dict[str, Any], version: str = VERSION) -> tuple[int, Any]:
        return self.call("POST", f"/compute/v2.1/servers/{server_id}/action", action, version)

    def migrate(self, server_id: str, host: str | None = None) -> None:
        """Ask for a live migration; the checks go on behind it."""
        status, body = self.act(server_id, {"os-migrateLive": {"host": host, "block_migration": "auto"}})
        if status != 202:
            raise ApiFailed(f"os-migrateLive was answered with {status}: {body}")

    def migrations(self, server_id: str, limit: int = 10) -> list[dict[str, Any]]:
        """Newest first."""
        path = f"/compute/v2.1/os-migrations?instance_uuid={server_id}&limit={limit}"
        return list(self.must("GET", path)["migrations"])

    def wait_migrated(self, server_id: str, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Until its newest migration has ended; the migration."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):  # control may be restarting
                newest = self.migrations(server_id, limit=1)[0]
                if newest["status"] in {"completed", "error", "cancelled", "failed"}:
                    return newest
            if time.monotonic() > deadline:
                raise ApiFailed(f"the migration of {server_id} has not ended after {timeout_s} s")
            time.sleep(0.01)

    def services(self) -> dict[tuple[str, str], str]:
        """(host, binary) -> up or down."""
        found = self.must("GET", "/compute/v2.1/os-services")["services"]
        return {(one["host"], one["binary"]): one["state"] for one in found}


def ticks(console: str) -> list[int]:
    """The numbers of the ticks since the last boot. Raises ApiFailed when one is missing or the memory was wrong."""
    since = console.rpartition("BOOTED")[2]
    if "CORRUPT" in since:
        raise ApiFailed("the guest found its memory corrupted")
    numbers = [int(found[1]) for line in since.splitlines() if (found := TICK.match(line))]
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            raise ApiFailed(f"tick {after} follows tick {before}: a number is missing")
    return numbers
