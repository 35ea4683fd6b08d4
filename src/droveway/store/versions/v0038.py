"""The pool of Ceph in which the root disk of an instance lies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    with op.batch_alter_table("instances") as instances:
        instances.add_column(sa.Column("root_pool", sa.String(length=255), nullable=True))
    op.create_index(
        "ix_instances_root_pool",
        "instances",
        ["root_pool"],
        sqlite_where=sa.text("root_pool IS NOT NULL"),
        postgresql_where=sa.text("root_pool IS NOT NULL"),
    )
