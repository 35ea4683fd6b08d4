"""Servers that are locked, and by whom; where they are said to be reached; what was asked of them, and by whom."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("instances", sa.Column("locked_by", sa.String(length=16), nullable=True))
    op.add_column("instances", sa.Column("access_ipv4", sa.String(length=15), nullable=True))
    op.add_column("instances", sa.Column("access_ipv6", sa.String(length=39), nullable=True))
    op.add_column(
        "instances", sa.Column("auto_disk_config", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    op.add_column("sagas", sa.Column("user_id", sa.String(length=64), nullable=True))
    instances = sa.table("instances", sa.column("id", sa.String), sa.column("user_id", sa.String))
    sagas = sa.table("sagas", *(sa.column(name, sa.String) for name in ("kind", "subject_id", "user_id")))
    owner = sa.select(instances.c.user_id).where(instances.c.id == sagas.c.subject_id).scalar_subquery()
    op.execute(sa.update(sagas).where(sagas.c.kind == "boot").values(user_id=owner))
    op.create_table(
        "server_requests",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_requests")),
    )
    op.create_index(op.f("ix_server_requests_at_us"), "server_requests", ["at_us"])
    op.create_index("ix_server_requests_instance", "server_requests", ["instance_id", "at_us"])
