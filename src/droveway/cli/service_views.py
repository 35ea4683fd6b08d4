"""How services, and what changes about them, are read and shown."""

from __future__ import annotations

from typing import Any, Protocol

from droveway.cli.columns import one_line, when, write
from droveway.cli.session import Session, address

SERVICES = "/droveway/v1/services"
COLUMNS = ("Binary", "Host", "Zone", "Status", "State", "Updated_At")
WIDE = ("Is", "Since", "Because", "Disabled Reason")
Services = dict[tuple[str, str], dict[str, Any]]


def read_list(session: Session, host: str = "", binary: str = "") -> list[dict[str, Any]]:
    """The services as the API tells them; the server does the filtering."""
    found: list[dict[str, Any]] = session.get(address(SERVICES, host=host, binary=binary))["services"]
    return found


def mark(word: str) -> str:
    return ":-)" if word == "up" else "XXX"


def status(service: dict[str, Any]) -> str:
    return "disabled" if service["disabled"] else "enabled"


def state(service: dict[str, Any]) -> str:
    """The failure detector's, unless an operator has set another."""
    return "forced down" if service["forced_down"] else str(service["state"])


def show_list(found: list[dict[str, Any]], *, wide: bool = False) -> None:
    rows = [
        (
            s["binary"],
            s["host"],
            s["zone"],
            status(s),
            mark(s["word"]),
            when(s["updated_at_us"]),
            *((state(s), when(s["since_us"]), s["reason"] or "-", s["disabled_reason"] or "-") if wide else ()),
        )
        for s in found
    ]
    write(COLUMNS + WIDE if wide else COLUMNS, rows)


class View(Protocol):
    """What shows it: a screen, or lines."""

    def show_all(self, services: Services) -> None: ...
    def show_change(self, services: Services, change: dict[str, Any]) -> None: ...
    def show_notice(self, reason: str) -> None: ...


def line_of(change: dict[str, Any]) -> str:
    became, because = change["became"], f": {one_line(change['because'])}" if change["because"] else ""
    sign = mark(became) if became in {"up", "down"} else "..."
    finer = f" ({change['state']})" if change["state"] not in {None, "alive", became} else ""
    return f"{when(change['at_us'])} {sign} {change['binary']} on {change['host']} {became}{finer}{because}"
