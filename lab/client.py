"""The few requests that `./dev up` sends. The OpenStack libraries take longer to import than the cloud to start."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

JSON_PATCH = "application/openstack-images-v2.1-json-patch"
TIMEOUT_S = 60


class ApiFailed(Exception):
    """The API refused or broke off; the message is what it said."""


class Client:
    def __init__(self, port: int) -> None:
        self._port = port
        self.token = self.project_id = ""

    def answers(self) -> bool:
        try:
            return self._request("GET", "/identity/v3")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def log_in(self, clouds_yaml: Path) -> None:
        password = re.search(r"^\s*password: (.+)$", clouds_yaml.read_text(), re.MULTILINE)
        if password is None:
            raise ApiFailed(f"{clouds_yaml} holds no password")
        domain = {"name": "Default"}
        user = {"name": "admin", "domain": domain, "password": password[1].strip("\"'")}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "admin", "domain": domain}},
        }
        _, headers, body = self._checked("POST", "/identity/v3/auth/tokens", {"auth": auth}, 201)
        self.token, self.project_id = headers["x-subject-token"], body["token"]["project"]["id"]

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers. Raises ApiFailed with what it says when it refuses."""
        return self._checked(method, path, body)[2]

    def has_image(self, name: str, path: Path | None = None) -> bool:
        """Whether there is a whole one, of the bytes of that file. One of other bytes, which an older release has made,
        gets another name; servers keep it. A broken one of an upload that was interrupted is deleted."""
        found = self._checked("GET", f"/image/v2/images?name={name}", None, 200)[2]["images"]
        sha512 = None if path is None else hashlib.sha512(path.read_bytes()).hexdigest()
        has_it = False
        for one in found:
            if one["status"] != "active":
                self._checked("DELETE", f"/image/v2/images/{one['id']}", None, 204)
            elif sha512 in (None, one["os_hash_value"]):
                has_it = True
            else:
                older = f"{name}-{one['created_at'][:10]}"
                self.must(
                    "PATCH", f"/image/v2/images/{one['id']}", [{"op": "replace", "path": "/name", "value": older}]
                )
        return has_it

    def usable_hosts(self) -> int:
        """How many hosts are up with a hypervisor that answers, and with a place for disks."""
        found = self._checked("GET", "/droveway/v1/hosts", None, 200)[2]["hosts"]
        return sum(one["word"] not in ("down", "never reported", "refused", "hypervisor", "store") for one in found)

    def usable_backends(self) -> int:
        """How many backends volumes can be made on."""
        pools = self._checked("GET", f"/volume/v3/{self.project_id}/scheduler-stats/get_pools", None, 200)[2]["pools"]
        return len(pools)

    def refresh_scheduler(self) -> None:
        """A dry run makes control look at the hosts as they are; otherwise a host that has just come up is not chosen
        for a moment. What it answers does not matter: the operator may have deleted that flavor."""
        with suppress(OSError, http.client.HTTPException):
            self._request("POST", "/droveway/v1/placements/try", {"placement": {"flavor": "tiny"}})

    def upload(self, name: str, path: Path) -> None:
        disk_format = "qcow2" if path.suffix == ".qcow2" else "raw"
        new = {"name": name, "disk_format": disk_format, "container_format": "bare", "visibility": "public"}
        made = self._checked("POST", "/image/v2/images", new, 201)[2]
        self._checked("PUT", f"/image/v2/images/{made['id']}/file", path, 204)

    def _checked(self, method: str, path: str, body: Any, wanted: int | None = None) -> tuple[int, Any, Any]:
        try:
            status, headers, text = self._request(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise ApiFailed(f"{method} {path} broke off: {error}") from error
        if status != wanted and not (wanted is None and 200 <= status < 300):
            raise ApiFailed(f"{method} {path} was answered with {status}: {text[:300].decode(errors='replace')}")
        return status, headers, json.loads(text) if text else None

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, Any, bytes]:
        headers = {"x-auth-token": self.token} if self.token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            if isinstance(body, Path):
                headers |= {"content-type": "application/octet-stream", "content-length": str(body.stat().st_size)}
                with body.open("rb") as file:
                    connection.request(method, path, file, headers)
            else:
                headers |= {"content-type": JSON_PATCH if method == "PATCH" else "application/json"}
                connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()
