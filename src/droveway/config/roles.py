"""Which keys the configuration file of each role has: none has more than it needs.

`role` stands at the top of the file. A file without it, or with "all", is for one machine and every start there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

SCHEME_SHOWN = 64  # characters
ROLES = ("all", "control", "api", "agent")
# Which roles' files a start takes. A control file serves no agent, nor the other way round.
TAKES = {
    "control": ("all", "control"),
    "api": ("api", "all"),
    "agent": ("agent", "all"),
    "heart": ("agent", "all"),
    "all": ROLES,
}
AGENT = frozenset(
    {
        "role",
        "state_path",
        "log_level",
        "bus",
        "console",
        "nats",
        "rabbitmq",
        "servicegroup_driver",
        "report_interval",
        "service_down_time",
        "initial_delay",
        "service_hung_time",
        "zookeeper",
        "etcd",
        "memcached",
        "host",
        "periodic",
        "image_cache",
        "backup",
    }
)
NOT_OF_CONTROL = frozenset({"backup", "host", "image_cache"})
NOT_OF_API = frozenset(
    {
        "backup",
        "deleted_kept_days",
        "host",
        "image_cache",
        "image_store",
        "migration",
        "name",
        "periodic",
        "scheduler",
        "shutdown_timeout",
        "storm_hold_time",
    }
)
WHY_NOT = {
    "backup": "where backups lie belongs into the files of the hosts that make them",
    "database": "an agent holds no database URL and needs none",
    "host": "a host belongs into the file of its agent",
    "ca": "only APIs sign certificates",
    "image_cache": "what a host keeps of images belongs into the file of its agent",
    "image_store": "control says how images reach hosts",
    "agents": "an agent's own [nats] or [rabbitmq] says how it reaches the broker",
}


def problems(raw: Mapping[str, Any], start: str) -> list[str]:
    """Every sentence that is wrong with the keys at the top of a file, before their values are looked at."""
    role = raw.get("role", "all")
    if role not in ROLES:
        return [f"role = {role!r} must be one of {', '.join(ROLES)}"]
    taken = TAKES.get(start, ROLES)
    if role not in taken:
        return [f"this is the file of role {role}; `droveway {start}` takes one of role {' or '.join(taken)}"]
    if role == "agent":
        foreign = sorted(raw.keys() - AGENT)
    else:
        foreign = sorted(raw.keys() & {"control": NOT_OF_CONTROL, "api": NOT_OF_API}.get(role, frozenset()))
    return [
        f"{key} does not belong into the file of role {role}: {WHY_NOT.get(key, f'role {role} has no use for it')}; "
        "take it out"
        for key in foreign
    ]


def wrong_beside(files: Sequence[Any]) -> list[str]:
    """What the configurations of several files say of each other: who bears one name twice would fight with himself."""
    names = [
        *(f"control {one.name}" for one in files if one.role in ("all", "control")),
        *(f"host {host.name}" for one in files for host in one.host),
        *(f"api.listen = {one.api.listen}" for one in files if one.role != "agent" and one.api.listen),
        *(f"api.agents_listen = {one.api.agents_listen}" for one in files if one.api.agents_listen),
    ]
    return [
        f"{name} is in two of the files; every control, host and address has one file"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def wrong_together(role: str, bus: str, listen: str) -> list[str]:
    """What the values say of each other."""
    if role == "api" and bus == "socket":
        return [
            "role = api needs bus = nats or rabbitmq: the socket bus has one control, with its API in the same process"
        ]
    if not listen and (bus == "socket" or role in ("all", "api")):
        return [
            "api.listen is empty, so no API is served: only a control with bus = nats or rabbitmq may leave "
            "that to others"
        ]
    return []


def wrong_database(url: str) -> list[str]:
    """Never with the URL itself, which may hold a password."""
    if not url or url.startswith("sqlite:///"):
        return []
    right = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
    scheme = url.partition("://")[0]
    if scheme not in {"postgresql", "postgresql+psycopg"}:
        return [f"database = {scheme[:SCHEME_SHOWN]}://… {right}" if "://" in url else f"database {right}"]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ["database: what follows HOST: is no port; in user and password : / ? # @ and % are percent-encoded"]
    if port == 0 or not parts.path.strip("/") or "/" in parts.path[1:] or "@" in parts.path:
        return [f"database {right}; in user and password : / ? # @ and % are percent-encoded"]
    return []
