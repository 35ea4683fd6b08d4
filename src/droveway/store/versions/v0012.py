"""Tickets for image data; and deleted images whose data is kept as long as a server uses it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("images", sa.Column("data_kept", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "ticket_keys",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
    )
    op.create_table(
        "spent_tickets",
        sa.Column("id", sa.String(length=36), primary_key=True),
        sa.Column("key_number", sa.Integer(), nullable=False),
    )
