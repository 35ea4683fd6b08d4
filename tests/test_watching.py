"""`droveway service watch` on a terminal: resized, left by q and by signals, stopped and gone on with."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from droveway.domain.liveness import State
from lab.processes import wait_for
from tests.api.test_services_cli import SOON_S, Served

ALTERNATE, NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """A command on a terminal of its own, and everything that it has drawn there."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._ours, self._its = pty.openpty()
        self.resize(24, 100)
        self.before = self.modes()
        self.drawn = b""
        environment = {**environment, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        command = ["setsid", "--ctty", *command]  # a session of its own, with this as its terminal
        self.process = subprocess.Popen(command, env=environment, stdin=self._its, stdout=self._its, stderr=self._its)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while piece := os.read(self._ours, 65536):
                self.drawn += piece

    def resize(self, rows: int, columns: int) -> None:
        """The kernel sends SIGWINCH, as it does under a real window."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> Any:
        return termios.tcgetattr(self._its)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def shows(self, words: bytes, after: int = 0) -> bool:
        return wait_for(lambda: words in self.drawn[after:], SOON_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SOON_S)
        os.close(self._its)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Served, Terminal]]:
    served = Served(tmp_path)
    terminal = Terminal(served.command("watch"), served.environment)
    try:
        assert terminal.shows(b"2 up, 0 down"), terminal.drawn
        yield served, terminal
    finally:
        terminal.close()
        served.stop()


Watched = tuple[Served, Terminal]


def test_it_is_drawn_anew_when_the_window_changes(watched: Watched) -> None:
    served, terminal = watched
    for rows, columns in ((40, 150), (12, 80)):
        seen = len(terminal.drawn)
        terminal.resize(rows, columns)
        assert terminal.shows(b"2 up, 0 down", seen)
        assert terminal.shows(b"h2", seen)
    seen = len(terminal.drawn)
    served.becomes(State.DEAD)
    assert terminal.shows(b"1 up, 1 down", seen)


LEAVES: list[tuple[str, Callable[[Terminal], object], int]] = [
    ("q", lambda terminal: terminal.press(b"q"), 0),
    ("Q among other keys", lambda terminal: terminal.press(b"xyzQ"), 0),
    ("Ctrl-C", lambda terminal: terminal.press(b"\x03"), 0),
    ("SIGTERM", lambda terminal: terminal.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
    ("SIGHUP", lambda terminal: terminal.process.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
]


@pytest.mark.parametrize(("leave", "code"), [each[1:] for each in LEAVES], ids=[each[0] for each in LEAVES])
def test_however_it_is_left_the_terminal_is_as_it_was(
    watched: Watched, leave: Callable[[Terminal], object], code: int
) -> None:
    _, terminal = watched
    assert not terminal.modes()[3] & termios.ECHO
    terminal.press(b"abc")
    leave(terminal)
    assert terminal.process.wait(SOON_S) == code
    assert wait_for(lambda: NORMAL in terminal.drawn, SOON_S)
    assert b"abc" not in terminal.drawn, "keys are not echoed"
    assert b"Traceback" not in terminal.drawn
    assert terminal.modes() == terminal.before


def test_ctrl_z_gives_the_terminal_back_and_it_goes_on_later(watched: Watched) -> None:
    _, terminal = watched
    terminal.press(b"\x1a")

    def is_stopped() -> bool:
        return Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(") ")[2].startswith("T")

    assert wait_for(is_stopped, SOON_S)
    assert terminal.modes() == terminal.before
    assert wait_for(lambda: terminal.drawn.rstrip().endswith(NORMAL) or NORMAL in terminal.drawn, SOON_S)
    seen = len(terminal.drawn)
    terminal.process.send_signal(signal.SIGCONT)
    assert terminal.shows(ALTERNATE, seen)
    assert terminal.shows(b"2 up, 0 down", seen)
    assert wait_for(lambda: not terminal.modes()[3] & termios.ECHO, SOON_S)
    terminal.press(b"q")
    assert terminal.process.wait(SOON_S) == 0


def test_a_server_that_goes_away_is_said_and_q_still_ends_it(watched: Watched) -> None:
    served, terminal = watched
    served.stop()
    try:
        assert terminal.shows(b"trying again")
        began_s = time.monotonic()
        terminal.press(b"q")
        assert terminal.process.wait(SOON_S) == 0
        assert time.monotonic() - began_s < 2.0
    finally:
        served.start()
