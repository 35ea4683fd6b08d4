"""`droveway aggregate …`: what the hosts of an aggregate have in common."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.columns import one_line
from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.session import Session, address
from droveway.cli.tables import show

AGGREGATES = "/droveway/v1/aggregates"
RUNS = {True: "yes", False: "NO", None: "?"}


@click.group(cls=Group, example="droveway aggregate cpu-baseline rack-1")
def aggregate() -> None:
    """What the hosts of an aggregate have in common."""


@aggregate.command("cpu-baseline", example="droveway aggregate cpu-baseline rack-1")
@click.argument("name")
@AS_JSON
def cpu_baseline(name: str, as_json: bool) -> None:
    """Which CPU every host of aggregate NAME can run, and which hosts cannot."""
    found: dict[str, Any] = Session().get(address(AGGREGATES, name, "cpu-baseline"))
    if as_json:
        print_json(found)
        return
    if found["reason"]:
        click.secho(f"{one_line(name)} has no common CPU: {one_line(found['reason'])}", bold=True, fg="red")
    elif found["model"] == "emulated":
        click.secho(f"guests in {one_line(name)} are emulated: their CPU is the same on every host", bold=True)
    else:
        click.secho(f"{one_line(name)}: {found['model']}", bold=True)
        for label, names in (("with", found["features"]), ("without", found["without"])):
            if names:
                click.echo(f"  {label}: {', '.join(names)}")
    rows = [
        (one["host"], one["model"] or "-", RUNS[one["runs"]], one_line(one["reason"]) or "-") for one in found["hosts"]
    ]
    show(("Host", "Its own CPU", "Runs it", "Because"), rows)
