"""`droveway migration …`: guests on their way."""

from __future__ import annotations

import click

from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.migration_plans import migration_plan, migration_predictions
from droveway.cli.migration_views import MIGRATIONS, UNDER_WAY, progress_line
from droveway.cli.session import Session, address
from droveway.cli.tables import show, when


@click.group(cls=Group, example="droveway migration list")
def migration() -> None:
    """Live migrations: whether one would work, how far they are, and how they ended."""


migration.add_command(migration_plan)
migration.add_command(migration_predictions)


@migration.command("list", example="droveway migration list --all --server web-1")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--server", default="", help="Of that server alone: its id or name.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@AS_JSON
def migration_list(everything: bool, server: str, limit: int, as_json: bool) -> None:
    """Migrations, newest first."""
    found = Session().get(address(MIGRATIONS, all=int(everything), server=server, limit=limit))["migrations"]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["server"]["name"],
            one["source"],
            one["destination"] or "-",
            one["status"],
            when(one["created_at_us"]),
            one["error"] or (progress_line(one) if one["status"] in UNDER_WAY else "-"),
        )
        for one in found
    ]
    show(("Id", "Server", "From", "To", "Status", "Began_At", "Progress"), rows)


@migration.command("watch", example="droveway migration watch web-1")
@click.argument("migration_id", metavar="SERVER|ID")
@AS_JSON
def migration_watch(migration_id: str, as_json: bool) -> None:
    """One migration until it ends, or until q or Ctrl-C: the newest of a server, or by its number. Ends with how it
    ended, and exit code 1 where it did not complete. A line for each change when this is no terminal; with --json a
    line of JSON each."""
    from droveway.cli.migration_screen import watch

    watch(migration_id, as_json=as_json)
