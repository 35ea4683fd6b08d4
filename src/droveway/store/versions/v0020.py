"""Identity whole: nested projects, groups, implied roles, one table of assignments, application credentials, keys of
other kinds, and the catalog as rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def _id(name: str, *, null: bool = False, length: int = 64) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=null)


def upgrade() -> None:
    op.add_column("domains", sa.Column("enabled", sa.Boolean(), nullable=False, server_default="1"))
    op.add_column("projects", _id("parent_id", null=True))
    op.add_column("projects", sa.Column("tags", sa.Text(), nullable=False, server_default="[]"))
    for column in (
        sa.Column("email", sa.String(length=255), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("password_expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("options", sa.Text(), nullable=False, server_default="{}"),
    ):
        op.add_column("users", column)
    op.add_column("roles", sa.Column("description", sa.Text(), nullable=True))
    op.add_column("tokens", sa.Column("is_system", sa.Boolean(), nullable=False, server_default="0"))
    op.add_column("tokens", _id("application_credential_id", null=True))
    _people()
    _assignments()
    _keys()
    _catalog()


def _people() -> None:
    ancestors = op.create_table(
        "project_ancestors",
        _id("project_id"),
        _id("ancestor_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_project_ancestors_project_id")),
        sa.PrimaryKeyConstraint("project_id", "ancestor_id", name=op.f("pk_project_ancestors")),
    )
    op.create_index(op.f("ix_project_ancestors_ancestor_id"), "project_ancestors", ["ancestor_id"])
    projects = sa.table("projects", sa.column("id"), sa.column("domain_id"))
    above = sa.select(projects.c.id, projects.c.domain_id)
    op.get_bind().execute(sa.insert(ancestors).from_select(["project_id", "ancestor_id"], above))
    op.create_table(
        "user_groups",
        _id("id"),
        _id("domain_id"),
        _id("name"),
        sa.Column("description", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domains.id"], name=op.f("fk_user_groups_domain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_groups")),
        sa.UniqueConstraint("domain_id", "name", name=op.f("uq_user_groups_domain_id")),
    )
    op.create_table(
        "group_members",
        _id("group_id"),
        _id("user_id"),
        sa.ForeignKeyConstraint(["group_id"], ["user_groups.id"], name=op.f("fk_group_members_group_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_group_members_user_id")),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_group_members")),
    )
    op.create_index(op.f("ix_group_members_user_id"), "group_members", ["user_id"])
    op.create_table(
        "role_implications",
        _id("prior_id"),
        _id("implied_id"),
        sa.ForeignKeyConstraint(["prior_id"], ["roles.id"], name=op.f("fk_role_implications_prior_id")),
        sa.ForeignKeyConstraint(["implied_id"], ["roles.id"], name=op.f("fk_role_implications_implied_id")),
        sa.PrimaryKeyConstraint("prior_id", "implied_id", name=op.f("pk_role_implications")),
    )


def _assignments() -> None:
    made = op.create_table(
        "assignments",
        _id("actor_kind", length=8),
        _id("actor_id"),
        _id("target_kind", length=8),
        _id("target_id"),
        _id("role_id"),
        sa.Column("inherited", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["role_id"], ["roles.id"], name=op.f("fk_assignments_role_id")),
        sa.PrimaryKeyConstraint(
            "actor_id", "target_kind", "target_id", "role_id", "inherited", name=op.f("pk_assignments")
        ),
    )
    op.create_index(op.f("ix_assignments_target_id"), "assignments", ["target_id"])
    names = ["actor_kind", "actor_id", "target_kind", "target_id", "role_id", "inherited"]
    for kind, name in (("project", "role_assignments"), ("domain", "domain_role_assignments")):
        old = sa.table(name, sa.column("user_id"), sa.column(f"{kind}_id"), sa.column("role_id"))
        rows = sa.select(
            sa.literal("user"), old.c.user_id, sa.literal(kind), old.c[f"{kind}_id"], old.c.role_id, sa.false()
        )
        op.get_bind().execute(sa.insert(made).from_select(names, rows))
        op.drop_table(name)
    users, roles = (
        sa.table(name, *(sa.column(one) for one in ("id", "name", "domain_id"))) for name in ("users", "roles")
    )
    first = sa.select(
        sa.literal("user"), users.c.id, sa.literal("system"), sa.literal("all"), roles.c.id, sa.false()
    ).where(users.c.name == "admin", users.c.domain_id == "default", roles.c.name == "admin")
    op.get_bind().execute(sa.insert(made).from_select(names, first))


def _keys() -> None:
    op.create_table(
        "application_credentials",
        _id("id"),
        _id("user_id"),
        _id("project_id"),
        _id("name", length=255),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("role_ids", sa.Text(), nullable=False),
        sa.Column("unrestricted", sa.Boolean(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_application_credentials_user_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_application_credentials_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_application_credentials")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_application_credentials_user_id")),
    )
    op.create_index(op.f("ix_application_credentials_project_id"), "application_credentials", ["project_id"])
    op.create_table(
        "credentials",
        _id("id"),
        _id("user_id"),
        _id("project_id", null=True),
        _id("type", length=255),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_credentials_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credentials")),
    )
    op.create_index(op.f("ix_credentials_user_id"), "credentials", ["user_id"])


def _catalog() -> None:
    op.create_table(
        "regions",
        _id("id", length=255),
        sa.Column("description", sa.Text(), nullable=False),
        _id("parent_id", null=True, length=255),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_regions")),
    )
    op.create_table(
        "catalog_services",
        _id("id"),
        _id("type", length=255),
        _id("name", length=255),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("is_own", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_services")),
    )
    op.create_table(
        "endpoints",
        _id("id"),
        _id("service_id"),
        _id("interface", length=8),
        _id("region_id", null=True, length=255),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["service_id"], ["catalog_services.id"], name=op.f("fk_endpoints_service_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_index(op.f("ix_endpoints_service_id"), "endpoints", ["service_id"])
