"""`droveway migration …`: live migrations, as an operator looks at them."""

from __future__ import annotations

import click

from droveway.cli.commands import Group
from droveway.cli.migration_plans import migration_plan, migration_predictions


@click.group(cls=Group, example="droveway migration plan web-1")
def migration() -> None:
    """Live migrations: whether one would work, and how those before it went."""


migration.add_command(migration_plan)
migration.add_command(migration_predictions)
