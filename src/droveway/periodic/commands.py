"""A command of ours under its warden, from the program's side: begin it, wait, and read how it went."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from droveway.periodic import warden

GRACE_S = 2.0  # between SIGTERM and SIGKILL
ENDS_S = GRACE_S + 1.0  # how long the end of the program waits for a command to end
LINE_CHARS = 200
_WARDEN = (sys.executable, "-I", "-S", str(Path(warden.__file__).resolve()))


class RunOutcome(msgspec.Struct, frozen=True):
    """How a run went. `sentence` is empty when it went well."""

    reason: str = ""
    timed_out: bool = False
    exit_code: int | None = None
    last_line: str = ""
    output: str = ""  # of one that did not go well: the last of its stderr


class _RunResult(msgspec.Struct, frozen=True):
    """The warden's line."""

    code: int = 0
    timed_out: bool = False
    stdout: str = ""
    stderr: str = ""
    error: str = ""


async def carry_out(command: Sequence[str], timeout_s: float, environment: Mapping[str, str]) -> RunOutcome:
    """Run it to its end, at the latest `timeout_s` and GRACE_S from now. Only a process that the kernel itself cannot
    end is waited for longer: beginning another beside it would pile them up. When cancelled, the command is ended."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_WARDEN,
            str(timeout_s),
            str(GRACE_S),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
            env={**os.environ, **environment},
            start_new_session=True,  # who kills the group of the program must leave the warden to do its work
        )
    except OSError as error:
        return RunOutcome(f"it cannot be started: {error.strerror}")
    assert process.stdin is not None and process.stdout is not None
    reading = asyncio.ensure_future(process.stdout.read())
    try:
        encoded = await asyncio.shield(reading)
        await process.wait()
    finally:
        process.stdin.close()  # the warden's sign to end the command, if it has not ended by itself
        if not reading.done():
            await asyncio.wait({reading}, timeout=ENDS_S)
            reading.cancel()
        if reading.done() and process.returncode is None:
            await process.wait()
    return _ended(encoded, timeout_s)


def _ended(encoded: bytes, timeout_s: float) -> RunOutcome:
    try:
        run = msgspec.json.decode(encoded, type=_RunResult)
    except msgspec.DecodeError:
        return RunOutcome("it is not known how it went: what watched over it was killed")
    if run.error:
        return RunOutcome(_one_line(run.error))
    last_line = _last_line(run.stdout) or _last_line(run.stderr)
    code, output = run.code, run.stderr or run.stdout
    if run.timed_out:
        return RunOutcome(f"killed: it had not ended after {timeout_s:g} s", True, code, last_line, output)
    if code == 0:
        return RunOutcome("", False, code, last_line)
    because = _last_line(run.stderr) or last_line
    return RunOutcome(f"{_how(code)}{': ' if because else ''}{because}", False, code, last_line, output)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _last_line(text: str) -> str:
    return _one_line(next((line for line in reversed(text.splitlines()) if line.strip()), ""))


def _one_line(text: str) -> str:
    """Short, and with nothing in it that would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:LINE_CHARS]
