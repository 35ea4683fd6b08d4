"""`droveway saga …`; and where the others are."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from droveway.cli.aggregates import aggregate
from droveway.cli.audit import audit
from droveway.cli.certificates import ca
from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.configuration import config
from droveway.cli.consoles import console
from droveway.cli.hosts import host
from droveway.cli.images import image
from droveway.cli.migrations import migration
from droveway.cli.placement import placement
from droveway.cli.session import Session, address
from droveway.cli.tables import show, when
from droveway.cli.tasks import task
from droveway.cli.users import user

SAGAS = "/droveway/v1/sagas"
MARKS = {
    "+": "done",
    "-": "undone",
    "!": "failed",
    "^": "too late to undo",
    "?": "waits",
    "X": "broken",
    "~": "left for later",
    "*": "noted",
}


@click.group(cls=Group, example="droveway saga list")
def saga() -> None:
    """Sagas: what is being done, step by step."""


@saga.command("list", example="droveway saga list --all --limit 20")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@AS_JSON
def saga_list(everything: bool, limit: int, as_json: bool) -> None:
    """Sagas, newest first."""
    found = Session().get(address(SAGAS, all=int(everything), limit=limit))["sagas"]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            s["id"][:8],
            s["kind"],
            _about(s),
            s["status"],
            s["generation"],
            when(s["updated_at_us"]),
            s["unreadable"] or s["blocked"] or s["error"] or "-",
        )
        for s in found
    ]
    show(("Saga", "Kind", "Subject", "Status", "Generation", "Updated_At", "Because"), rows)


def _about(one: dict[str, Any]) -> str:
    return f"{one['subject_kind']} {one['subject_id']}"


@saga.command("show", example="droveway saga show 00e35")
@click.argument("saga_id")
@AS_JSON
def saga_show(saga_id: str, as_json: bool) -> None:
    """One saga with its steps: when, how long, and why. SAGA_ID may be its beginning."""
    found = Session().get(address(SAGAS, saga_id))["saga"]
    if as_json:
        print_json(found)
        return
    console = Console(highlight=False, markup=False)
    console.print(f"{found['kind']} of {_about(found)}: {found['status']}, saga {found['id']}")
    if found["step"]:
        console.print(f"step: {found['step']}")
    for label, text in (
        ("cannot go on", found["unreadable"]),
        ("failed", found["error"]),
        ("waits", found["blocked"]),
        ("cancelled", found["cancel"]),
    ):
        if text:
            console.print(f"{label}: {text}")
    rows = [
        (
            when(step["at_us"]),
            step["step"],
            MARKS[step["mark"]],
            f"{step['ms']:.1f}",
            step["generation"],
            step.get("text", ""),
        )
        for step in found["steps"]
    ]
    show(("At", "Step", "Was", "ms", "Generation", "Because"), rows)


@saga.command("retry", example="droveway saga retry 00e35")
@click.argument("saga_id")
@AS_JSON
def saga_retry(saga_id: str, as_json: bool) -> None:
    """Let a broken saga go on from where it stopped, once its cause is gone."""
    session = Session()
    session.post(address(SAGAS, saga_id, "retry"))
    if as_json:
        print_json(session.get(address(SAGAS, saga_id))["saga"])
        return
    click.echo(f"saga {saga_id} goes on; 'droveway saga show {saga_id}' tells how")


@saga.command("cancel", example="droveway saga cancel 00e35")
@click.argument("saga_id")
@AS_JSON
def saga_cancel(saga_id: str, as_json: bool) -> None:
    """Undo a saga, if its point of no return has not passed. SAGA_ID may be its beginning."""
    session = Session()
    session.post(address(SAGAS, saga_id, "cancel"))
    if as_json:
        print_json(session.get(address(SAGAS, saga_id))["saga"])
        return
    click.echo(f"saga {saga_id} is undone if it is not too late; 'droveway saga show {saga_id}' tells")


COMMANDS: dict[str, click.Command] = {
    "aggregate": aggregate,
    "audit": audit,
    "ca": ca,
    "config": config,
    "console": console,
    "host": host,
    "image": image,
    "migration": migration,
    "placement": placement,
    "saga": saga,
    "task": task,
    "user": user,
}
