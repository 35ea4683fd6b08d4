"""A session with the API from clouds.yaml, as the `openstack` command finds it; nothing but the standard library."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

TIMEOUT_S = 30


def _auth() -> dict[str, str]:
    """The `auth` of cloud $OS_CLOUD (droveway) in $OS_CLIENT_CONFIG_FILE, or ./clouds.yaml.

    droveway writes this file itself, two levels of `key: value`, so this reads just that and needs no YAML library.
    """
    path = Path(os.environ.get("OS_CLIENT_CONFIG_FILE", "clouds.yaml"))
    cloud = os.environ.get("OS_CLOUD", "droveway")
    if not path.exists():
        raise click.ClickException(
            f"{path.absolute()} does not exist; './dev up' writes it, OS_CLIENT_CONFIG_FILE names it"
        )
    found: dict[str, str] = {}
    current = ""
    for line in path.read_text().splitlines():
        key, _, value = line.strip().partition(":")
        if line.startswith("  ") and not line.startswith("   "):
            current = key
        elif value and current == cloud:
            found[key] = value.strip().strip("\"'")
    if "auth_url" not in found:
        raise click.ClickException(f"{path} has no cloud named {cloud}; OS_CLOUD names one")
    return found


class Session:
    """Logs in once, then asks."""

    def __init__(self) -> None:
        auth = _auth()
        self._base = auth["auth_url"].removesuffix("/identity/v3")
        user = {"name": auth["username"], "password": auth["password"], "domain": {"name": auth["user_domain_name"]}}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": auth["project_name"],
                                      "domain": {"name": auth["project_domain_name"]}}},
            }
        }  # fmt: skip
        _, headers = self._call("POST", "/identity/v3/auth/tokens", {}, json.dumps(body).encode())
        self._headers = {"X-Auth-Token": headers["X-Subject-Token"]}

    def get(self, path: str) -> Any:
        value, _ = self._call("GET", path, self._headers, None)
        return value

    def post(self, path: str, body: Any = None) -> Any:
        return self._send("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self._send("PATCH", path, body)

    def _send(self, method: str, path: str, body: Any) -> Any:
        value, _ = self._call(method, path, self._headers, json.dumps(body or {}).encode())
        return value

    def _call(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> tuple[Any, Any]:
        request = urllib.request.Request(self._base + path, data=body, method=method,
                                         headers={"Content-Type": "application/json", **headers})  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return json.loads(reply.read() or b"null"), reply.headers
        except urllib.error.HTTPError as error:
            raise click.ClickException(_sentence(error)) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise click.ClickException(
                f"{self._base} does not answer ({reason}); './dev up' starts the cloud"
            ) from None


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        body = next(iter(json.loads(error.read()).values()))
        return str(body["message"])
    except (ValueError, KeyError, TypeError, StopIteration):
        return f"the API answered {error.code} {error.reason}"
