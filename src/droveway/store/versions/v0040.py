"""Tokens that a signature bought know with which key; config drives hold a password that was wished."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0038"


def upgrade() -> None:
    with op.batch_alter_table("tokens") as batch:
        batch.add_column(sa.Column("credential_id", sa.String(length=64)))
    with op.batch_alter_table("guest_data") as batch:
        batch.add_column(sa.Column("admin_password", sa.String(length=255)))
