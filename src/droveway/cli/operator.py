"""`droveway service …` and `droveway saga …`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from droveway.cli.session import Session

MARKS = {"+": "done", "-": "undone", "!": "failed", "^": "too late to undo", "?": "waits", "X": "broken"}


def _when(us: int | None) -> str:
    """Seconds, UTC, as every OpenStack table writes it."""
    return "-" if us is None else datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _show(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=None if Console().is_terminal else 200, highlight=False, markup=False).print(table)


@click.group()
def service() -> None:
    """Which services are alive."""


@service.command("list")
@click.option("--host", default="", help="Only of that host.")
@click.option("--service", "binary", default="", help="Only that binary, such as nova-compute.")
@click.option("--wide", is_flag=True, help="Say why, too.")
def service_list(host: str, binary: str, wide: bool) -> None:
    """Binary, host, zone, status, state and when it was last heard."""
    found = Session().get("/droveway/v1/services")["services"]
    rows = [
        (s["binary"], s["host"], s["zone"], "disabled" if s["disabled"] else "enabled",
         ":-)" if s["is_up"] and not s["forced_down"] else "XXX", _when(s["updated_at_us"]),
         *(("forced down" if s["forced_down"] else s["sentence"], s["disabled_reason"] or "-") if wide else ()))
        for s in found if host in ("", s["host"]) and binary in ("", s["binary"])
    ]  # fmt: skip
    more = ("Because", "Disabled Reason") if wide else ()
    _show(("Binary", "Host", "Zone", "Status", "State", "Updated_At", *more), rows)


@click.group()
def saga() -> None:
    """What is being done, step by step."""


@saga.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
def saga_list(everything: bool, limit: int) -> None:
    """Sagas, newest first."""
    found = Session().get(f"/droveway/v1/sagas?all={int(everything)}&limit={limit}")["sagas"]
    rows = [
        (s["id"][:8], s["kind"], s["server_id"], s["status"], s["generation"], _when(s["updated_at_us"]),
         s["blocked"] or s["error"] or "-")
        for s in found
    ]  # fmt: skip
    _show(("Saga", "Kind", "Server", "Status", "Generation", "Updated_At", "Because"), rows)


@saga.command("show")
@click.argument("saga_id")
def saga_show(saga_id: str) -> None:
    """One saga with its steps: when, how long, and why. SAGA_ID may be its beginning."""
    found = Session().get(f"/droveway/v1/sagas/{saga_id}")["saga"]
    console = Console(highlight=False, markup=False)
    console.print(f"{found['kind']} of server {found['server_id']}: {found['status']}, saga {found['id']}")
    for label, text in (("failed", found["error"]), ("waits", found["blocked"]), ("cancelled", found["cancel"])):
        if text:
            console.print(f"{label}: {text}")
    rows = [
        (_when(step["at_us"]), step["step"], MARKS[step["mark"]], f"{step['ms']:.1f}", step["generation"],
         step.get("text", ""))
        for step in found["steps"]
    ]  # fmt: skip
    _show(("At", "Step", "Was", "ms", "Generation", "Because"), rows)


COMMANDS: dict[str, click.Command] = {"service": service, "saga": saga}
