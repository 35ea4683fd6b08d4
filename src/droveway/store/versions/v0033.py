"""Files that guests have left on hosts which did not answer when they were to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0028"


def upgrade() -> None:
    op.create_table(
        "file_cleanups",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("mark", sa.String(length=64), nullable=False),
        sa.Column("when_deleted", sa.Boolean(), nullable=False),
        sa.Column("tried_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("host", "instance_id", name=op.f("pk_file_cleanup")),
    )
