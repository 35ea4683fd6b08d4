"""An agent looks after its host's certificate: each hour a small process asks and, when it is time to, renews it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import structlog

from droveway.config.hosts import HostConfig
from droveway.ports.clock import Chance, Clock

log = structlog.get_logger("droveway.agent")
FIRST_S, EACH_S = 60.0, 3600.0
ENDS_S = 120.0  # the process; it has bounds of its own that are shorter


async def keep(
    host: HostConfig, clock: Clock, chance: Chance, *, first_s: float = FIRST_S, each_s: float = EACH_S
) -> None:
    """Until cancelled; nothing to do where the host has no certificate."""
    if not host.tls_path or not host.renew_url:
        return
    logged = ""
    await clock.sleep(chance.uniform(0.0, first_s))  # not all hosts of a site at once
    while True:
        reason, trouble, renewed = await look(host)
        if renewed:
            log.info("certificate renewed", host=host.name, because=reason)
        if trouble and trouble != logged:
            log.warning("certificate", host=host.name, because=trouble)
        logged = trouble
        await clock.sleep(each_s * chance.uniform(0.9, 1.1))


async def look(host: HostConfig) -> tuple[str, str, bool]:
    """What host_files.look says, from a process of its own."""
    settings = {
        "host": host.name,
        "tls_path": host.tls_path,
        "renew_url": host.renew_url,
        "libvirt_pki": host.libvirt_pki,
        "renewed_command": list(host.renewed_command),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "droveway.pki.host_files",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return "", f"nothing could look after the certificate: {error}", False
    try:
        async with asyncio.timeout(ENDS_S):
            out, err = await process.communicate(json.dumps(settings).encode())
        found = json.loads(out)
        return str(found["reason"]), str(found["trouble"]), bool(found["renewed"])
    except TimeoutError:
        return "", f"the renewal of the certificate did not end within {ENDS_S:g} s", False
    except (ValueError, LookupError):
        last = (err.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        return "", f"the renewal of the certificate failed: {last[:300]}", False
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
