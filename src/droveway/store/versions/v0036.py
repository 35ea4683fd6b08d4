"""What was foreseen of each migration, and how it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0034"


def upgrade() -> None:
    op.create_table(
        "migration_predictions",
        sa.Column("saga_id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("destination", sa.String(length=255), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("dirty_bytes_per_s", sa.BigInteger(), nullable=True),
        sa.Column("learnt_from", sa.Integer(), nullable=False),
        sa.Column("predicted_ms", sa.BigInteger(), nullable=True),
        sa.Column("predicted_downtime_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("downtime_ms", sa.BigInteger(), nullable=True),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("saga_id", name=op.f("pk_migration_predictions")),
    )
    op.create_index(op.f("ix_migration_predictions_at_us"), "migration_predictions", ["at_us"], unique=False)
