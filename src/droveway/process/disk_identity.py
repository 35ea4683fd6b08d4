"""A host gets what it opens served disks with, before its hypervisor is connected to: made by a small process, so that
none of its services keeps in memory what makes certificates."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog

from droveway.config.hosts import HostConfig

log = structlog.get_logger("droveway.agent")
ENDS_S = 60.0


def ensure(host: HostConfig) -> None:
    """Nothing to do where the host has no certificate of the cloud, or is to have none of these. Blocks."""
    if not host.disk_tls_path or not host.tls_path:
        return
    settings = {"directory": host.disk_tls_path, "host": host.name, "cloud_ca": f"{host.tls_path}/ca.pem"}
    try:
        made = subprocess.run(
            [sys.executable, "-m", "droveway.pki.disk_identity"],
            input=json.dumps(settings),
            capture_output=True,
            text=True,
            timeout=ENDS_S,
            check=False,
        )
        why = (made.stderr.strip().splitlines() or ["it said nothing"])[-1] if made.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        log.warning("no certificate for opening served disks", host=host.name, because=why[:300])
