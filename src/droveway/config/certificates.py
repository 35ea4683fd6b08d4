"""The keys of the configuration file that are about certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from droveway.config import http_bounds


class CaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The private CA, which signs the certificates of hosts (process/authority.py)."""

    directory: str = ""  # where its keys lie; empty: `ca` in state_path
    validity_days: int = 90  # of the certificates; renewed after two thirds


def problems(ca: CaConfig, api: Any, hosts: Sequence[Any]) -> list[str]:
    """Every sentence that is wrong with these parts of a file."""
    problems = []
    listen, url = api.agents_listen, api.agents_url
    if ca.directory and not Path(ca.directory).is_absolute():
        problems.append(f"ca.directory = {ca.directory!r} must be an absolute path")
    if listen:
        problems += http_bounds.wrong_address(listen, "api.agents_listen")
        problems += http_bounds.wrong_url(listen, url, "api.agents_listen", "https")
        if not api.listen:
            problems.append("api.agents_listen needs api.listen: hosts join there first")
    if url and not url.startswith("https://"):
        problems.append(f"api.agents_url = {url!r} must be https://HOST:PORT")
    for host in hosts:
        problems += [
            f"host {host.name}: {key} = {getattr(host, key)!r} must be an absolute path"
            for key in ("tls_path", "libvirt_pki")
            if getattr(host, key) and not Path(getattr(host, key)).is_absolute()
        ]
        if host.renew_url and not host.renew_url.startswith("https://"):
            problems.append(f"host {host.name}: renew_url = {host.renew_url!r} must be https://HOST:PORT")
        if not host.tls_path and (host.renew_url or host.libvirt_pki):
            problems.append(f"host {host.name}: tls_path is missing; renew_url and libvirt_pki need it")
    return problems
