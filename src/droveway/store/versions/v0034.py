"""How far the copy of a migration is: its disks, what else its hypervisor counts, and whether it was forced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
BYTES = ("disk_total_bytes", "disk_processed_bytes", "disk_remaining_bytes")


def upgrade() -> None:
    for name in BYTES:
        op.add_column("migrations", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("migrations", sa.Column("progress", sa.Text(), nullable=True))
    op.add_column("migrations", sa.Column("forced", sa.Boolean(), nullable=False, server_default="0"))
    op.create_index(op.f("ix_migrations_saga_id"), "migrations", ["saga_id"], unique=False)
    op.create_index("ix_migrations_source", "migrations", ["source", "status"], unique=False)
