"""Who may use a network beside its project: a policy for each, and for each that is shared with all or external."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
ACTIONS = (("shared", "access_as_shared"), ("external", "access_as_external"))


def upgrade() -> None:
    policies = op.create_table(
        "rbac_policies",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.String(length=36), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rbac_policies")),
        sa.UniqueConstraint("object_id", "action", "target", name=op.f("uq_rbac_policies_object_id")),
    )
    op.create_index("ix_rbac_policies_target", "rbac_policies", ["target"])
    networks = sa.table(
        "networks",
        *(sa.column(name, sa.String) for name in ("id", "project_id")),
        *(sa.column(name, sa.Boolean) for name in ("shared", "external")),
        sa.column("created_at_us", sa.BigInteger),
    )
    connection = op.get_bind()
    for column, action in ACTIONS:
        for row in connection.execute(sa.select(networks).where(networks.c[column])).all():
            made = {"id": str(uuid.uuid5(uuid.UUID(row.id), action)), "project_id": row.project_id, "object_id": row.id}
            more = {"action": action, "target": "*", "created_at_us": row.created_at_us}
            connection.execute(sa.insert(policies).values(**made, **more))
