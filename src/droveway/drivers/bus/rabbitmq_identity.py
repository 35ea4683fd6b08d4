"""A RabbitMQ user for each host: made by the broker's management API, or by commands that an operator types.

The topic permissions come first: a user that has none may use every routing key.
"""

from __future__ import annotations

import base64
import json
import shlex
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import quote

from droveway.domain.broker_rights import RabbitRights

TIMEOUT_S = 5.0


class Management(NamedTuple):
    """The management API and a user of it with the tag administrator."""

    url: str
    user: str
    password: str


class UserNotCreated(Exception):
    """The management API did not make the user; the message says why."""


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
    """Make the user, or give it another password. Blocks; raises UserNotCreated."""
    user, where = quote(name, safe=""), quote(virtual_host, safe="")
    _put(at, f"users/{user}", {"password": password, "tags": ""})
    _put(
        at,
        f"topic-permissions/{where}/{user}",
        {"exchange": rights.exchange, "write": rights.topic_write, "read": rights.topic_read},
    )
    _put(at, f"permissions/{where}/{user}", {"configure": rights.configure, "write": rights.write, "read": rights.read})


def _put(at: Management, path: str, body: dict[str, str]) -> None:
    known = base64.b64encode(f"{at.user}:{at.password}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {known}"}
    data = json.dumps(body).encode()
    try:
        request = urllib.request.Request(f"{at.url.rstrip('/')}/api/{path}", data, headers, method="PUT")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        raise UserNotCreated(f"the management API at {at.url} answered {error.code} ({error.reason})") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserNotCreated(
            f"the management API at {at.url} does not answer ({getattr(error, 'reason', error)})"
        ) from None
