"""`droveway service watch`: the list, and the stream of what changes about it, over every loss of the server."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, NamedTuple

import click

from droveway.cli.service_views import SERVICES, Services, View, line_of, read_list, show_list
from droveway.cli.session import Session

RETRY_S, RETRY_MAX_S = 1.0, 5.0
LINE_MAX_BYTES = 1 << 20


class Event(NamedTuple):
    """One of the stream; `data` is None for the first, which only says where the stream stands."""

    id: str
    data: dict[str, Any] | None


def parse(lines: Iterator[bytes]) -> Iterator[Event]:
    """Server-Sent Events as this API sends them: a line an id, a line of data."""
    event_id, data = "", None
    for line in lines:
        name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(": ")
        if name == "id":
            event_id = value
        elif name == "data":
            data = json.loads(value)
        elif not name and not value and event_id:
            yield Event(event_id, data)
            event_id, data = "", None


def watch(*, as_json: bool = False) -> None:
    """Until Ctrl-C. A server that is not there at the beginning is an error; one that goes away later is waited for."""
    session = Session()
    if sys.stdout.isatty() and not as_json:
        from droveway.cli.screen import Screen

        Screen().run(lambda view: _keep_following(session, view))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _keep_following(session, _JsonLines() if as_json else _Lines())


def _keep_following(session: Session, view: View) -> None:
    """Over every loss of the server."""
    last_id, pause_s = "", RETRY_S
    while True:
        try:
            for event_id in _follow(session, view, last_id):
                last_id, pause_s = event_id, RETRY_S
            reason = "the server has ended the stream"
        except (click.ClickException, OSError, HTTPException, ValueError) as error:
            reason = error.format_message() if isinstance(error, click.ClickException) else str(error)
        view.show_notice(f"{reason}; trying again every few seconds")
        session = _reconnect(pause_s, session)
        pause_s = min(pause_s * 2, RETRY_MAX_S)


def _reconnect(pause_s: float, session: Session) -> Session:
    """A new login where that is possible: the old token may have ended with its server."""
    time.sleep(pause_s)
    try:
        return Session()
    except click.ClickException:
        return session


def _follow(session: Session, view: View, last_id: str) -> Iterator[str]:
    """The stream first, then the list, so that no event is missed; one that is sent twice does no harm."""
    services: Services = {}
    with session.listen(f"{SERVICES}/events", last_id) as reply:
        for event in parse(iter(lambda: reply.readline(LINE_MAX_BYTES), b"")):
            if event.data is None:
                services = {(each["host"], each["binary"]): each for each in read_list(session)}
                view.show_all(services)
            else:
                _apply(session, services, event.data)
                view.show_change(services, event.data)
            yield event.id


def _apply(session: Session, services: Services, change: dict[str, Any]) -> None:
    key = change["host"], change["binary"]
    known = services.get(key)
    if change["became"] in {"up", "down"} and known is not None and not known["forced_down"]:
        known |= {
            "word": change["became"],
            "state": change["state"],
            "reason": change["because"],
            "since_us": change["at_us"],
        }
        return
    services.pop(key, None)
    for each in read_list(session, *key):
        services[key] = each


class _Lines:
    """For files and pipes."""

    _has_list = False
    _shown = ""

    def show_all(self, services: Services) -> None:
        if not self._has_list:
            show_list(list(services.values()))
        else:
            self.show_notice("the server answers again")
        self._has_list = True
        sys.stdout.flush()

    def show_change(self, services: Services, change: dict[str, Any]) -> None:
        click.echo(line_of(change))
        sys.stdout.flush()

    def show_notice(self, reason: str) -> None:
        if reason != self._shown:
            click.echo(reason, err=True)
        self._shown = reason


class _JsonLines(_Lines):
    """For programs: each line is whole in itself, {"services": [...]} first and {"change": {...}} after it."""

    def show_all(self, services: Services) -> None:
        """Again after each loss of the server: what changed meanwhile was not sent."""
        self._write({"services": list(services.values())})

    def show_change(self, services: Services, change: dict[str, Any]) -> None:
        self._write({"change": change})

    def _write(self, what: dict[str, Any]) -> None:
        click.echo(json.dumps(what))
        sys.stdout.flush()
