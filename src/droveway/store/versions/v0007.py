"""What an operator says of a host that will not come back by itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("declared", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("hosts", sa.Column("declared_because", sa.Text(), nullable=False, server_default=""))
    op.add_column("hosts", sa.Column("declared_at_us", sa.BigInteger(), nullable=True))
