"""A saga's cursor is the name of its step; and why a saga of another release cannot be carried on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

# The stories as the release before told them: a row held the index of its step among these. Never changed again.
STEPS = {
    "boot": ("choose_host", "prepare_guest", "start_guest", "record_running"),
    "delete": ("find_guest", "remove_guest", "record_deleted"),
    "stop": ("find_guest", "stop_guest", "record_stopped"),
    "start": ("find_guest", "start_guest", "record_running"),
    "hard_reboot": ("find_guest", "cycle_guest", "record_running"),
    "live_migration": (
        "instance_runs",
        "choose_destination",
        "check_destination",
        "check_source",
        "remove_probe",
        "admit_guest",
        "show_running",
        "begin_copy",
        "await_switch",
        "record_switch",
        "release_source",
        "record_done",
    ),
}


def upgrade() -> None:
    op.add_column("sagas", sa.Column("step", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("sagas", sa.Column("unreadable", sa.Text(), nullable=True))
    sagas = sa.table("sagas", *(sa.column(name) for name in ("kind", "status", "position", "generation", "step")))
    connection = op.get_bind()
    standing = sa.select(sagas.c.kind, sagas.c.status, sagas.c.position).distinct()
    for row in connection.execute(standing).all():
        same = sa.and_(sagas.c.kind == row.kind, sagas.c.status == row.status, sagas.c.position == row.position)
        connection.execute(sa.update(sagas).where(same).values(step=_name(*row)))
    op.drop_column("sagas", "position")


def _name(kind: str, status: str, position: int) -> str:
    """Of the step at that index; what is no step of that release is named so that no release takes it for one."""
    if status == "done":
        return "end"
    if status == "undone" or (status in {"queued", "forward"} and position == 0):
        return ""
    steps = STEPS.get(kind, ())
    return steps[position] if 0 <= position < len(steps) else f"step {position} of {kind}"[:64]
