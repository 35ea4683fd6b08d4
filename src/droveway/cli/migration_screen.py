"""`droveway migration watch`: asks how far a migration is until it has ended, over every loss of the server."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from droveway.cli.columns import one_line, when
from droveway.cli.migration_views import MIGRATIONS, UNDER_WAY, done, outcome_line, progress_line
from droveway.cli.screen import KEYS_MAX_BYTES, QUIT, RawTerminal
from droveway.cli.session import Session, address

LOOK_S, RETRY_S = 1.0, 3.0
EVENTS_SHOWN = 8
BAR_WIDTH = 60
Migration = dict[str, Any]


def watch(wanted: str, *, as_json: bool) -> None:
    """A server that is not there at the beginning is an error; one that goes away later is waited for."""
    session = Session()
    first: Migration = session.get(address(MIGRATIONS, wanted))["migration"]
    ended: Migration | None = None
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            ended = _on_screen(session, first)
        else:
            ended = _as_lines(session, first, as_json=as_json)
    if ended is None:
        return
    if not as_json:
        click.echo(outcome_line(ended))
    if ended["status"] != "completed":
        raise SystemExit(1)


def _looks(session: Session, first: Migration) -> Iterator[tuple[Migration, str]]:
    """Each look, and why the last one failed; the caller waits between two. By its number: a newer migration of the
    same server is another one. Ends with the one that has ended."""
    seen, trouble = first, ""
    while True:
        yield seen, trouble
        if seen["status"] not in UNDER_WAY:
            return
        try:
            seen, trouble = session.get(address(MIGRATIONS, str(first["id"])))["migration"], ""
        except click.ClickException as error:
            trouble = f"{error.format_message()}; trying again every few seconds"


def _as_lines(session: Session, first: Migration, *, as_json: bool) -> Migration:
    """For files and pipes: what has changed."""
    shown: Any = None
    events, complained = 0, ""
    for seen, trouble in _looks(session, first):
        first = seen
        if as_json:
            if seen != shown:
                click.echo(json.dumps(seen))
            shown = seen
        else:
            for event in seen["events"][events:]:
                click.echo(_event(event))
            events = len(seen["events"])
            line = f"{seen['status']}: {progress_line(seen)}"
            if line != shown and seen["status"] in UNDER_WAY:
                click.echo(line)
            shown = line
        if trouble and trouble != complained:
            click.echo(trouble, err=True)
        complained = trouble
        sys.stdout.flush()
        if seen["status"] in UNDER_WAY:
            time.sleep(RETRY_S if trouble else LOOK_S)
    return first


def _on_screen(session: Session, first: Migration) -> Migration | None:
    """None: it was left before it ended."""
    console = Console(highlight=False)
    with RawTerminal(), Live(console=console, auto_refresh=False, transient=True) as live:
        for seen, trouble in _looks(session, first):
            first = seen
            live.update(_picture(seen, trouble), refresh=True)
            if seen["status"] in UNDER_WAY and _quits(RETRY_S if trouble else LOOK_S):
                return None
    return first


def _quits(within_s: float) -> bool:
    """Whether a key says so that it is enough, within that time."""
    if not sys.stdin.isatty():
        time.sleep(within_s)
        return False
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], within_s)
    if not ready:
        return False
    pressed = os.read(sys.stdin.fileno(), KEYS_MAX_BYTES)
    return not pressed or QUIT in pressed.lower()  # nothing: the terminal has gone


def _picture(seen: Migration, trouble: str) -> Group:
    head = Text(f"{one_line(seen['server']['name'])}: {seen['source']} to {seen['destination'] or '?'}", style="bold")
    head.append(f"  {seen['status']}{', forced to complete' if seen['forced'] else ''}  (q or Ctrl-C ends)")
    share = done(seen)
    bar = ProgressBar(total=1.0, completed=share or 0.0, width=BAR_WIDTH, pulse=share is None)
    lines = [Text(progress_line(seen))]
    if seen["policy"]:
        lines.append(Text(f"policy {seen['policy']}, downtime at most {seen['downtime_max_ms']} ms", style="dim"))
    if seen["waits"]:
        lines.append(Text(one_line(seen["waits"]), style="yellow"))
    lines += [Text(_event(event), no_wrap=True, overflow="ellipsis") for event in seen["events"][-EVENTS_SHOWN:]]
    if trouble:
        lines.append(Text(one_line(trouble), style="yellow"))
    return Group(head, bar, *lines)


def _event(event: dict[str, Any]) -> str:
    return f"{when(event['at_us'])}  {event['step']}: {one_line(event['text'])}"
