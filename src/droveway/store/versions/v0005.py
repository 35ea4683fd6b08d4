"""Roles on a domain, and tokens that are good for one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("domain_id", sa.String(length=64), nullable=True))
    op.create_table(
        "domain_role_assignments",
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("role_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domains.id"], name=op.f("fk_domain_role_assignments_domain_id")),
        sa.ForeignKeyConstraint(["role_id"], ["roles.id"], name=op.f("fk_domain_role_assignments_role_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_domain_role_assignments_user_id")),
        sa.PrimaryKeyConstraint("user_id", "domain_id", "role_id", name=op.f("pk_domain_role_assignments")),
    )
