"""A terminal for `droveway service watch`: one thread follows the server, this one draws and hears keys and signals.

Keys are not echoed; q and Ctrl-C end it, Ctrl-Z stops it, a resize draws anew. However it ends, the terminal is as it
was before.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from droveway.cli.columns import one_line, when
from droveway.cli.service_views import Services, View, line_of, mark, state, status

TRANSITIONS_SHOWN = 8
QUIT = b"q"
KEYS_MAX_BYTES = 1024
_HEADINGS = ("Binary", "Host", "Zone", "Status", "State", "Is", "Since", "Because")


class Screen:
    """A table that fits the terminal: what is down first, then what changed last; below it the last changes."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, screen=True)
        self._services: list[dict[str, Any]] = []
        self._changes: list[dict[str, Any]] = []
        self._trouble = ""
        self._failure: BaseException | None = None
        self._stops = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    # -- what the other thread tells -----------------------------------------------------------------------------------
    def show_all(self, services: Services) -> None:
        self._services, self._trouble = list(services.values()), ""
        self._redraw()

    def show_change(self, services: Services, change: dict[str, Any]) -> None:
        self._services = list(services.values())
        self._changes = [*self._changes, change][-TRANSITIONS_SHOWN:]
        self._redraw()

    def show_notice(self, reason: str) -> None:
        self._trouble = reason
        self._redraw()

    def _redraw(self) -> None:
        with contextlib.suppress(BlockingIOError):  # so many have been given that it will wake up anyway
            os.write(self._wake, b"\0")

    # -- the loop ------------------------------------------------------------------------------------------------------
    def run(self, follow: Callable[[View], None]) -> None:
        """Until q or Ctrl-C. What `follow` fails with, this raises."""
        context = click.get_current_context(silent=True)

        def follow_here() -> None:
            with context.scope(cleanup=False) if context is not None else contextlib.nullcontext():
                follow(self)

        def fail(failure: threading.ExceptHookArgs) -> None:
            self._failure = failure.exc_value
            self._redraw()

        threading.excepthook = fail  # the only thread there is
        thread = threading.Thread(target=follow_here, daemon=True)  # it may hang in a read
        with contextlib.suppress(KeyboardInterrupt), self._signals(), RawTerminal() as terminal, self._live:
            thread.start()
            while self._failure is None:
                self._draw()
                if self._ends():
                    return
                if self._stops:
                    self._stop(terminal)
        if self._failure is not None:
            raise self._failure

    def _ends(self) -> bool:
        """Sleep until there is something to draw; True when a key says that it is enough."""
        keys = [sys.stdin.fileno()] if sys.stdin.isatty() else []
        ready, _, _ = select.select([self._woken, *keys], [], [])
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 1 << 16)
        if not set(keys) & set(ready):
            return False
        pressed = os.read(keys[0], KEYS_MAX_BYTES)
        return not pressed or QUIT in pressed.lower()  # nothing: the terminal has gone

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A resize, and having been stopped, wake the loop; what ends a program ends it in order."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stops = True

        def end(number: int, _frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        wanted: dict[int, Any] = {
            signal.SIGWINCH: lambda *_: None,
            signal.SIGCONT: lambda *_: None,
            signal.SIGTSTP: stop,
            signal.SIGTERM: end,
            signal.SIGHUP: end,
        }
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        waker = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, terminal: RawTerminal) -> None:
        """As Ctrl-Z stops any program; it goes on with `fg`."""
        self._stops = False
        self._live.stop()
        terminal.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        terminal.enter()
        self._live.start()

    # -- the picture ---------------------------------------------------------------------------------------------------
    def _draw(self) -> None:
        ranked = sorted(self._services, key=lambda s: (s["word"] == "up", -(s["since_us"] or 0)))
        most_rows = max(3, self._console.height - TRANSITIONS_SHOWN - 6)
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        for name in _HEADINGS:
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == "Because" else None)
        for s in ranked[:most_rows]:
            row = (
                s["binary"],
                s["host"],
                s["zone"],
                status(s),
                mark(s["word"]),
                state(s),
                when(s["since_us"]),
                s["reason"],
            )
            table.add_row(*(Text(one_line(cell)) for cell in row), style="" if s["word"] == "up" else "red")
        up = sum(s["word"] == "up" for s in ranked)
        hidden = f", {len(ranked) - most_rows} more not shown" if len(ranked) > most_rows else ""
        head = Text(f"{up} up, {len(ranked) - up} down{hidden}; q or Ctrl-C ends", style="bold")
        below = [Text(line_of(change), no_wrap=True, overflow="ellipsis") for change in reversed(self._changes)]
        trouble = [Text(self._trouble, style="yellow")] if self._trouble else []
        self._live.update(Group(head, *trouble, Text(), table, Text(), *below), refresh=True)


class RawTerminal:
    """A terminal that hands over each key at once and does not echo it, as long as this lasts."""

    def __enter__(self) -> RawTerminal:
        self._before: list[Any] | None = None
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self) -> None:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            wanted = termios.tcgetattr(sys.stdin)
            wanted[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, wanted)

    def leave(self) -> None:
        if self._before is not None:
            with contextlib.suppress(termios.error):  # the terminal has gone
                termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._before)
