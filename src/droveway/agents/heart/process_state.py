"""What a heart sees of a process from outside: why it does not move, and how it ended. One sentence each."""

from __future__ import annotations

import fcntl
import os
from struct import Struct

# The state of a process in /proc, as proc(5) has it, and what that means for a loop that does not turn.
STATES = {
    "T": "its process is stopped (SIGSTOP)",
    "t": "its process is stopped by a debugger",
    "D": "its process sleeps in the kernel (state D{wchan})",
    "Z": "its process has ended and its parent has not asked how (state Z)",
    "R": "its process runs but its loop does not turn (state R)",
    "S": "its process sleeps and its loop does not turn (state S{wchan})",
}
SAYS_IT_ALL = "TtDZX"  # in these states whatever its loop was in is not the cause
SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
}
# pidfd(2): PIDFD_GET_INFO, its struct up to the exit code, and the bit that asks for that. Linux 6.15 or later.
GET_INFO, INFO, WITH_EXIT = 0xC040FF0B, Struct("<Q52xi"), 1 << 3


def why_still(pid: int, where: str, is_connected: bool) -> str:
    """Why a service that lives does not move; `where` is what its process last said that its loop is in."""
    state = _read(f"/proc/{pid}/stat").rpartition(") ")[2][:1]
    reason = STATES.get(state, f"its process is in state {state}")
    if state not in SAYS_IT_ALL:
        if not is_connected:
            reason = "its process lives but has lost its connection to the heart"
        elif where:
            reason = f"its loop is in {where}"
    if "{wchan}" in reason:
        wchan = _read(f"/proc/{pid}/wchan")
        reason = reason.replace("{wchan}", f", in {wchan}" if wchan not in {"", "0"} else "")
    return f"{reason}; pid {pid}"


def how_it_ended(pidfd: int, pid: int) -> str:
    """Empty until its parent has asked, and where the kernel does not say."""
    if pidfd < 0:
        return ""
    asked = bytearray(INFO.size)
    INFO.pack_into(asked, 0, WITH_EXIT, 0)
    try:
        fcntl.ioctl(pidfd, GET_INFO, asked)
    except OSError:
        return ""
    mask, status = INFO.unpack(asked)
    if not mask & WITH_EXIT:
        return ""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"its process was killed by {SIGNALS.get(number, f'signal {number}')}; pid {pid}"
    return f"its process ended with exit code {os.WEXITSTATUS(status)}; pid {pid}"


def _read(path: str) -> str:
    """Empty when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
