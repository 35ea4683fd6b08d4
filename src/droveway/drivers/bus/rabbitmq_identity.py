"""A RabbitMQ user for each host: made by the broker's management API, or by commands that an operator types.

The topic permissions come first: a user that has none may use every routing key.
"""

from __future__ import annotations

import base64
import json
import shlex
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import quote

from droveway.domain.broker_rights import RabbitRights

TIMEOUT_S = 5.0
ANSWER_MAX_BYTES = 256 * 1024


class Management(NamedTuple):
    """The management API and a user of it with the tag administrator."""

    url: str
    user: str
    password: str


class UserNotCreated(Exception):
    """The management API did not make the user; the message says why."""


class NotAHosts(Exception):
    """There is a user of that name, who is no host: made anew he would lose his password and his rights."""


def commands(name: str, password: str, virtual_host: str, rights: RabbitRights) -> list[str]:
    """What to type where the broker is."""
    there = ["-p", virtual_host]
    return [
        shlex.join(("rabbitmqctl", "add_user", name, password)),
        shlex.join(
            (
                "rabbitmqctl",
                "set_topic_permissions",
                *there,
                name,
                rights.exchange,
                rights.topic_write,
                rights.topic_read,
            )
        ),
        shlex.join(("rabbitmqctl", "set_permissions", *there, name, rights.configure, rights.write, rights.read)),
    ]


def make(at: Management, name: str, password: str, virtual_host: str, rights: RabbitRights) -> None:
    """Make the user, or give it another password. Blocks; raises UserNotCreated, NotAHosts."""
    user, where = quote(name, safe=""), quote(virtual_host, safe="")
    _must_be_a_hosts(at, user, name, rights)
    _put(at, f"users/{user}", {"password": password, "tags": ""})
    _put(
        at,
        f"topic-permissions/{where}/{user}",
        {"exchange": rights.exchange, "write": rights.topic_write, "read": rights.topic_read},
    )
    _put(at, f"permissions/{where}/{user}", {"configure": rights.configure, "write": rights.write, "read": rights.read})


def _must_be_a_hosts(at: Management, user: str, name: str, rights: RabbitRights) -> None:
    """Where that user is there already: without tags, and with the rights of a host or none yet. The name comes from
    the joining host, and the user may be another control's, or an administrator."""
    found = _ask(at, f"users/{user}")
    if found is None:
        return
    allowed = _ask(at, f"users/{user}/permissions") or []
    theirs = {(one["configure"], one["write"], one["read"]) for one in allowed}
    if found["tags"] or theirs - {(rights.configure, rights.write, rights.read)}:
        raise NotAHosts(f"the broker's user {name} is no host's")


def _put(at: Management, path: str, body: dict[str, str]) -> None:
    _ask(at, path, body)


def _ask(at: Management, path: str, body: dict[str, str] | None = None) -> Any:
    """What is there, None when nothing is; with a body, to put it there."""
    known = base64.b64encode(f"{at.user}:{at.password}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {known}"}
    data, method = (None, "GET") if body is None else (json.dumps(body).encode(), "PUT")
    try:
        request = urllib.request.Request(f"{at.url.rstrip('/')}/api/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return json.loads(reply.read(ANSWER_MAX_BYTES)) if body is None else None
    except urllib.error.HTTPError as error:
        if body is None and error.code == HTTPStatus.NOT_FOUND:
            return None
        raise UserNotCreated(f"the management API at {at.url} answered {error.code} ({error.reason})") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserNotCreated(
            f"the management API at {at.url} does not answer ({getattr(error, 'reason', error)})"
        ) from None
