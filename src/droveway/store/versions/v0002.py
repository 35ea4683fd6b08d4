"""The failure detector's verdict of a service: its state, and since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("services", sa.Column("state", sa.String(length=16), nullable=False, server_default="expected"))
    op.add_column("services", sa.Column("since_us", sa.BigInteger(), nullable=True))
    op.execute("UPDATE services SET state = CASE WHEN is_up THEN 'alive' ELSE 'not reporting' END")
