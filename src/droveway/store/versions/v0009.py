"""Sagas, fences and events are about a subject: a kind and an id. All that were before are about an instance, but for
the events, whose kind told what they were about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

ACTIVE = "status IN ('forward', 'backward', 'broken')"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("fence", sa.Integer(), nullable=False, server_default="0"))
    op.drop_index("uq_sagas_one_active", table_name="sagas")
    op.drop_index("ix_sagas_instance_id", table_name="sagas")
    with op.batch_alter_table("sagas") as batch:
        batch.alter_column(
            "instance_id",
            new_column_name="subject_id",
            existing_type=sa.String(length=36),
            type_=sa.String(length=255),
            existing_nullable=False,
        )
        batch.add_column(sa.Column("subject_kind", sa.String(length=16), nullable=False, server_default="instance"))
        batch.add_column(sa.Column("holds", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_sagas_subject", "sagas", ["subject_id", "subject_kind"])
    op.create_index(
        "uq_sagas_one_active",
        "sagas",
        ["subject_id", "subject_kind"],
        unique=True,
        sqlite_where=sa.text(ACTIVE),
        postgresql_where=sa.text(ACTIVE),
    )
    op.create_table(
        "saga_subjects",
        sa.Column("saga_id", sa.String(length=36), nullable=False),
        sa.Column("subject_kind", sa.String(length=16), nullable=False),
        sa.Column("subject_id", sa.String(length=255), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("saga_id", "subject_kind", "subject_id", name=op.f("pk_saga_subjects")),
    )
    op.create_index("ix_saga_subjects_subject", "saga_subjects", ["subject_id", "subject_kind"])
    op.create_index(
        "uq_saga_subjects_held",
        "saga_subjects",
        ["subject_id", "subject_kind"],
        unique=True,
        sqlite_where=sa.text("held"),
        postgresql_where=sa.text("held"),
    )
    _of_events()


def _of_events() -> None:
    op.drop_index("ix_events_subject", table_name="events")
    op.alter_column("events", "subject", new_column_name="subject_id")
    op.add_column("events", sa.Column("subject_kind", sa.String(length=16), nullable=False, server_default="instance"))
    events = sa.table("events", *(sa.column(name) for name in ("kind", "subject_kind", "subject_id")))
    kept_kinds = events.c.kind.in_(("saga", "service", "host", "aggregate"))
    op.execute(sa.update(events).where(kept_kinds).values(subject_kind=events.c.kind))
    hosts = sa.table("hosts", sa.column("name"))
    of_host = sa.and_(events.c.kind == "alarm", events.c.subject_id.in_(sa.select(hosts.c.name)))
    op.execute(sa.update(events).where(of_host).values(subject_kind="host"))
    op.create_index("ix_events_subject", "events", ["subject_id", "subject_kind", "id"])
