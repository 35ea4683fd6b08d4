"""`droveway task …`."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.session import Session, address
from droveway.cli.tables import show, when

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def _length(seconds: float | None) -> str:
    """A length of time, short: 6 h, 90 s, 0.25 s."""
    if seconds is None:
        return "-"
    for unit_s, unit in UNITS:
        if seconds >= 2 * unit_s or seconds == unit_s:
            return f"{seconds / unit_s:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _row(task: dict[str, Any]) -> tuple[Any, ...]:
    due_s = task["next_due_in_s"]
    coming = "running" if task["running_since_us"] is not None else "-" if due_s is None else f"in {_length(due_s)}"
    return (
        task["name"],
        task["service"] or "control",
        task["kind"],
        _length(task["every_s"]),
        when(task["last_started_us"]),
        _length(task["last_duration_s"]),
        task["overruns"],
        task["errors"],
        coming,
        task["last_error"] or task["last_line"] or "-",
    )


@click.group(cls=Group, example="droveway task list h1")
def task() -> None:
    """Periodic tasks of the program and of operators."""


@task.command("list", example="droveway task list h1 --json")
@click.argument("host")
@AS_JSON
def task_list(host: str, as_json: bool) -> None:
    """Periodic tasks of HOST: of each of its services, or of the control of that name."""
    found = Session().get(address("/droveway/v1/hosts", host, "tasks"))["tasks"]
    if as_json:
        print_json(found)
        return
    columns = ("Task", "Of", "Kind", "Every", "Last run", "Took", "Overran", "Errors", "Next", "Because")
    show(columns, [_row(one) for one in found])
