"""Key pairs of users; user data, the key and the ports of each server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "keypairs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keypairs")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_keypairs_user_id")),
    )
    op.create_table(
        "guest_data",
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("user_data", sa.Text(), nullable=True),
        sa.Column("key_type", sa.String(length=16), nullable=True),
        sa.Column("public_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_guest_data_instance_id")),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_guest_data")),
    )
    op.create_table(
        "server_ports",
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("port_id", sa.String(length=36), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=60), nullable=True),
        sa.Column("is_made", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "port_id", name=op.f("pk_server_ports")),
    )
    op.create_index(op.f("ix_server_ports_port_id"), "server_ports", ["port_id"])
