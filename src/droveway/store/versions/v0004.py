"""Placement: aggregates, server groups, quotas, access to flavors, decisions, join tokens; generations of reports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

LONG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("hosts", sa.Column("generation", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("hosts", sa.Column("refused", sa.Text(), nullable=False, server_default=""))
    op.add_column("hosts", sa.Column("protocol", sa.Integer(), nullable=False, server_default="1"))
    op.create_index("ix_hosts_claims", "hosts", ["name", "claims"])
    op.add_column("instances", sa.Column("launch_index", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("instances", sa.Column("hints", sa.Text(), nullable=True))
    op.add_column("instances", sa.Column("server_group_id", sa.String(length=36), nullable=True))
    op.add_column("instances", sa.Column("held_cells", sa.Text(), nullable=True))
    op.add_column("migrations", sa.Column("held_cells", sa.Text(), nullable=True))
    grouped, kept = sa.text("server_group_id IS NOT NULL"), sa.text("NOT deleted")
    op.create_index(
        "ix_instances_group", "instances", ["server_group_id"], sqlite_where=grouped, postgresql_where=grouped
    )
    op.create_index(
        "ix_instances_quota",
        "instances",
        ["project_id", "vcpus", "ram_mb", "deleted"],
        sqlite_where=kept,
        postgresql_where=kept,
    )
    _of_projects()
    _of_hosts()
    _placements()


def _of_projects() -> None:
    op.create_table(
        "flavor_access",
        sa.Column("flavor_id", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["flavor_id"], ["flavors.id"], name=op.f("fk_flavor_access_flavor_id")),
        sa.PrimaryKeyConstraint("flavor_id", "project_id", name=op.f("pk_flavor_access")),
    )
    op.create_table(
        "quotas",
        sa.Column("scope", sa.String(length=80), nullable=False),
        sa.Column("resource", sa.String(length=32), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "resource", name=op.f("pk_quotas")),
    )
    op.create_table(
        "server_groups",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("max_server_per_host", sa.Integer(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_groups")),
    )
    op.create_index(op.f("ix_server_groups_project_id"), "server_groups", ["project_id"])


def _of_hosts() -> None:
    op.create_table(
        "aggregates",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aggregates")),
        sa.UniqueConstraint("name", name=op.f("uq_aggregates_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_aggregates_uuid")),
    )
    op.create_table(
        "aggregate_hosts",
        sa.Column("aggregate_id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["aggregate_id"], ["aggregates.id"], name=op.f("fk_aggregate_hosts_aggregate_id")),
        sa.PrimaryKeyConstraint("aggregate_id", "host", name=op.f("pk_aggregate_hosts")),
    )
    op.create_index("ix_aggregate_hosts_host", "aggregate_hosts", ["host"])
    op.create_table(
        "join_tokens",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.Column("used_at_us", sa.BigInteger(), nullable=True),
        sa.Column("used_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_join_tokens")),
    )
    op.create_index(op.f("ix_join_tokens_expires_at_us"), "join_tokens", ["expires_at_us"])


def _placements() -> None:
    op.create_table(
        "placements",
        sa.Column("id", LONG_ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("saga_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_placements")),
    )
    op.create_index(op.f("ix_placements_at_us"), "placements", ["at_us"])
    op.create_index("ix_placements_instance", "placements", ["instance_id", "id"])
