"""Where a server was before it was resized, or moved while it was off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    op.add_column("instances", sa.Column("former", sa.Text(), nullable=True))
    op.add_column("instances", sa.Column("resized_at_us", sa.BigInteger(), nullable=True))
