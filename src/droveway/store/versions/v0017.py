"""The network outside where nobody names one; what was made for a project that named no network."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("networks", sa.Column("is_default", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "auto_topologies",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("network_id", sa.String(length=36), nullable=False),
        sa.Column("router_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_auto_topologies")),
    )
