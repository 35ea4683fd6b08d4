"""What of its plan of networks is in force on each host."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "host_networks",
        sa.Column("host", sa.String(length=255), primary_key=True),
        sa.Column("tunnel_address", sa.String(length=45), nullable=False),
        sa.Column("physical_networks", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.Text(), nullable=False),
        sa.Column("applied_at_us", sa.BigInteger(), nullable=False),
    )
