"""Programs of a backend as child processes: bounded in time and in what they say, and ended with us.

Each is started by `setpriv --pdeathsig`: a service that is killed in the middle of a copy leaves no program that goes
on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from droveway.ports.storage import StorageDown, StorageRefused

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
QUICK_S, COPY_S = 30.0, 6 * 3600.0  # what only changes metadata; what moves the bytes of a volume
SAYS_MAX_BYTES = 64 << 20
REASON_MAX = 600
# What setpriv itself says of a program that is not there; it ends with 127 then.
_NOT_FOUND = 127


class Done(NamedTuple):
    code: int
    out: bytes
    words: str  # what it said on its standard error, in one line


class Programs:
    """Of one backend: at most `at_once` of them run, the others wait for their turn."""

    def __init__(self, at_once: int = 4, environment: Mapping[str, str] | None = None) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._environment = {"PATH": PATH, "LANG": "C.UTF-8", **(environment or {})}

    async def run(self, package: str, *command: str, within_s: float = QUICK_S, stdin: bytes = b"") -> bytes:
        """What it prints. Raises StorageRefused with its words, StorageDown when it did not end in time."""
        done = await self.try_run(package, *command, within_s=within_s, stdin=stdin)
        if done.code:
            raise StorageRefused(f"{command[0]} refused: {done.words or f'it ended with {done.code}'}"[:REASON_MAX])
        return done.out

    async def try_run(self, package: str, *command: str, within_s: float = QUICK_S, stdin: bytes = b"") -> Done:
        """How it ended, whatever that is. Raises StorageDown when it did not end in time."""
        async with self._turns:
            return await self._run(package, command, within_s, stdin)

    async def _run(self, package: str, command: tuple[str, ...], within_s: float, stdin: bytes) -> Done:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *command),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=SAYS_MAX_BYTES,
            env=self._environment,
            cwd="/",
        )
        try:
            async with asyncio.timeout(within_s):
                out, complaint = await process.communicate(stdin or None)
        except TimeoutError:
            raise StorageDown(f"{command[0]} did not end within {within_s:.0f} s.") from None
        finally:
            if process.returncode is None:  # out of time, or the caller was cancelled: nothing of it stays
                process.kill()
                await process.wait()
        words = " ".join(complaint.decode(errors="replace").split())[-REASON_MAX:]
        assert process.returncode is not None, "it has ended"
        if process.returncode == _NOT_FOUND and "setpriv" in words:
            raise StorageRefused(f"{command[0]} is not installed on this host: install {package}.")
        return Done(process.returncode, out, words)
