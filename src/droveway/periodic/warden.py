"""Stands over one command: `warden.py TIMEOUT_S GRACE_S COMMAND…`. A process of its own, the standard library alone.

The command gets a session of its own, so that one signal reaches it and all it has forked. It is ended (SIGTERM, and
SIGKILL after the grace) at its deadline, and when our stdin reads its end: the caller is gone, or wants no more of
it. What it leaves behind in its group is killed in any case. Its output is read here and dropped but for the last
bytes, so that not even a flood of it reaches the program. In the end one line of JSON says how it went.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

KEPT_BYTES = 4096
READ_BYTES = 65536
LAST_READ_BYTES = 1 << 20  # of what is still in the pipes when it has ended: another process may hold them open
OURS = 0  # our stdin
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # by us: stdin alone says when to end


class _Output:
    """One pipe from the command: only its last bytes are kept."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.kept = b""

    def read(self) -> int:
        """One piece of it; how long that was. Raises BlockingIOError when there is none now."""
        piece = os.read(self.reading, READ_BYTES)
        self.kept = (self.kept + piece)[-KEPT_BYTES:]
        return len(piece)

    def drain(self) -> None:
        left = LAST_READ_BYTES
        try:
            while left > 0 and (count := self.read()):
                left -= count
        except BlockingIOError:
            pass

    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


class CommandRunner:
    def __init__(self, command: list[str]) -> None:
        self.out, self.err = _Output(), _Output()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self.out.writing, 1),
            (os.POSIX_SPAWN_DUP2, self.err.writing, 2),
        ]
        defaults = (signal.SIGPIPE, signal.SIGXFSZ, *IGNORED)  # the first two are ignored by Python itself
        self.pid = os.posix_spawnp(
            command[0], command, os.environ, file_actions=actions, setsid=True, setsigdef=defaults
        )
        self._ended = os.pidfd_open(self.pid)
        os.close(self.out.writing)
        os.close(self.err.writing)
        self._poll = select.poll()
        for descriptor in (OURS, self._ended, self.out.reading, self.err.reading):
            self._poll.register(descriptor, select.POLLIN)

    def run(self, timeout_s: float, grace_s: float) -> dict[str, object]:
        has_ended, is_told = self._watch(timeout_s)
        if not has_ended:
            self._signal(signal.SIGTERM)
            self._watch(grace_s)
        self._signal(signal.SIGKILL)  # the group: what it has left behind goes too
        _, status = os.waitpid(self.pid, 0)
        self.out.drain()
        self.err.drain()
        return {
            "code": os.waitstatus_to_exitcode(status),
            "timed_out": not has_ended and not is_told,
            "stdout": self.out.text(),
            "stderr": self.err.text(),
        }

    def _watch(self, for_s: float) -> tuple[bool, bool]:
        """Read until the command has ended, we are told to end it, or the time is up: (has ended, are told)."""
        until_s = time.monotonic() + for_s  # noqa: TID251 - a program of its own: it has no clock port
        while (left_s := until_s - time.monotonic()) > 0:  # noqa: TID251 - see above
            ready = {descriptor for descriptor, _ in self._poll.poll(left_s * 1000)}
            for output in (self.out, self.err):
                if output.reading in ready and not output.read():
                    self._poll.unregister(output.reading)
            if self._ended in ready:
                return True, False
            if OURS in ready and not os.read(OURS, 1):
                self._poll.unregister(OURS)
                return False, True
        return False, False

    def _signal(self, number: int) -> None:
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # no process is left, or all have changed their user
            os.killpg(self.pid, number)


def main(timeout_s: str, grace_s: str, *command: str) -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        ended = CommandRunner(list(command)).run(float(timeout_s), float(grace_s))
    except OSError as error:
        ended = {"error": f"{command[0]} cannot be started: {error.strerror}"}
    with contextlib.suppress(BrokenPipeError):  # there is no reader any more
        os.write(1, json.dumps(ended).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
