"""The keys of the configuration file that are about consoles."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec


class ConsoleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the consoles that this API shows."""

    token_s: int = 180  # how long the URL of a console is good, for one use
    sessions_max: int = 256  # consoles that are open at once
    sessions_per_server_max: int = 8  # likewise of one server
    idle_s: float = 1800.0  # a session in which neither end has said anything for so long ends
    url: str = ""  # where hosts reach the agents' listener of this very API; empty: api.agents_url
    on_this_machine: bool = False  # API and agents run here and share state_path: a socket there carries consoles
    novnc_path: str = "/usr/share/novnc"  # where noVNC lies, which shows screens


def numbers(consoles: ConsoleConfig) -> list[tuple[str, float, float, float, str]]:
    return [
        ("console.token_s", consoles.token_s, 10, 3600, "seconds, such as 180"),
        ("console.sessions_max", consoles.sessions_max, 1, 4096, "sessions, such as 256"),
        ("console.sessions_per_server_max", consoles.sessions_per_server_max, 1, 256, "sessions, such as 8"),
        ("console.idle_s", consoles.idle_s, 1, 7 * 24 * 3600, "seconds, such as 1800.0"),
    ]


def problems(consoles: ConsoleConfig, allowed_origins: tuple[str, ...]) -> list[str]:
    """Every sentence that is wrong with these parts of a file."""
    found = []
    if consoles.url and not consoles.url.startswith("https://"):
        found.append(f"console.url = {consoles.url!r} must be https://HOST:PORT, an agents' listener")
    if not Path(consoles.novnc_path).is_absolute():
        found.append(f"console.novnc_path = {consoles.novnc_path!r} must be an absolute path")
    return found + [
        f"api.allowed_origins: {one!r} must be http://HOST or https://HOST, with a port or without, and nothing more"
        for one in allowed_origins
        if not _is_origin(one)
    ]


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        return False
