"""Consoles of servers: which there are, what a token of one allows, and why a session of one ends. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

PIECE_BYTES = 64 * 1024  # of a console's bytes, at once in memory
LAST_WORDS_BYTES = 123  # what a websocket carries of a sentence when it closes (RFC 6455, 5.5)
# How a host comes to an API with a session: a path of its agents' listener, a header with the session's secret name.
STREAMS, SESSION_HEADER = "/droveway/v1/console-streams", "x-droveway-console"
UNIX = "unix:"  # in the place of a URL: the API is on the same machine, behind a unix socket that its agents know
SOCKET = "consoles.sock"  # its name, in state_path
RUNNING, PAUSED = 1, 3  # power states, Nova's numbers
ASK_AGAIN = "ask for another URL"


class ConsoleKind(StrEnum):
    """What a guest has: a screen, as RFB 3.8 (VNC) has it, and a serial line of plain bytes."""

    VNC = "vnc"
    SERIAL = "serial"


# Which console a type of Nova's is; the others are types that Nova knows, and no host offers here.
OFFERED = {"novnc": ConsoleKind.VNC, "serial": ConsoleKind.SERIAL}
TYPE_OF = {kind: name for name, kind in OFFERED.items()}


class ConsoleGrant(msgspec.Struct, frozen=True):
    """What a token, and the session that it opens, is for. `project_id`: the one in which its user asked; `as_admin`:
    of a server of another project, so that an admin's role is what it hangs on."""

    instance_id: str
    host: str
    kind: ConsoleKind
    user_id: str
    project_id: str
    as_admin: bool = False


class ServerState(msgspec.Struct, frozen=True):
    """A server, as far as its console is concerned."""

    host: str | None
    vm_state: str
    power_state: int
    deleted: bool = False


def why_none(name: str, server: ServerState) -> str:
    """Why that server has no console now; empty when it has one."""
    if server.host is None or server.vm_state == "building":
        return f"Instance {name} is not ready: it is still being built, or has no host."
    if server.power_state not in (RUNNING, PAUSED):
        return f"Instance {name} does not run ({server.vm_state}), so it has no console: start it first."
    return ""


def why_over(grant: ConsoleGrant, server: ServerState | None, roles: frozenset[str]) -> str:
    """Why a token or a session is good no longer; empty while it is. `roles`: of its user where it asked, with what
    they imply; none when the user or the project is disabled."""
    if server is None or server.deleted:
        return "The server was deleted."
    if ("admin" if grant.as_admin else "member") not in roles:
        return "You may not use this server any more: your role was taken away."
    if server.host != grant.host:
        return f"The server has moved to another host: {ASK_AGAIN}."
    if server.power_state not in (RUNNING, PAUSED):
        return f"The server was stopped: start it, and {ASK_AGAIN}."
    return ""


def last_words(reason: str) -> str:
    """The sentence, as much of it as a closing websocket carries."""
    data = reason.encode()
    if len(data) <= LAST_WORDS_BYTES:
        return reason
    return data[: LAST_WORDS_BYTES - 3].decode(errors="ignore") + "…"
