"""A service has a topic, and what is no compute service stands in the internal zone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

# The kinds that the release before knew. A row of another binary was made by any process that beat under that name;
# none observes it any more, so it must not stay up.
TOPICS = {"nova-compute": "compute", "nova-scheduler": "scheduler", "nova-conductor": "conductor"}


def upgrade() -> None:
    op.add_column("services", sa.Column("topic", sa.String(length=255), nullable=False, server_default=""))
    services = sa.table(
        "services", *(sa.column(name) for name in ("binary", "topic", "zone", "is_up", "state", "sentence"))
    )
    connection = op.get_bind()
    for binary, topic in TOPICS.items():
        connection.execute(sa.update(services).where(services.c.binary == binary).values(topic=topic))
    others = services.c.binary != "nova-compute"
    connection.execute(sa.update(services).where(others).values(zone="internal"))
    connection.execute(
        sa.update(services)
        .where(services.c.binary.not_in(TOPICS))
        .values(is_up=sa.false(), state="expected", sentence="this release knows no service of that name; delete it")
    )
