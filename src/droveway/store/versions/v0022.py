"""Servers that are shelved, or deleted softly; a password that a guest has told. Longer words of their states."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("instances", sa.Column("shelved_image_id", sa.String(length=36), nullable=True))
    op.add_column("instances", sa.Column("shelved_at_us", sa.BigInteger(), nullable=True))
    op.add_column("instances", sa.Column("soft_deleted_at_us", sa.BigInteger(), nullable=True))
    op.add_column("instances", sa.Column("guest_password", sa.Text(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":  # SQLite heeds no length
        op.alter_column("instances", "vm_state", type_=sa.String(length=32))
