"""Services and aggregates as tables of fields."""

from __future__ import annotations

from droveway.api.compute.fields import View
from droveway.api.http.render import Field, FieldTable, constant, micros
from droveway.store.rows import Aggregate, ServiceRow, UsableRow


def state(row: UsableRow, view: View) -> str:
    return "up" if row["is_up"] and not row["forced_down"] else "down"


def status(row: UsableRow, view: View) -> str:
    return "disabled" if row["disabled"] else "enabled"


SERVICE = FieldTable(
    ServiceRow,
    Field("id", "id", 1, 52),
    Field("id", "uuid", 53),
    Field("binary", "binary"),
    Field("host", "host"),
    Field("zone", "zone"),
    Field("status", status),
    Field("state", state),
    Field("updated_at", lambda row, view: micros(row["updated_at_us"])),
    Field("disabled_reason", "disabled_reason"),
    Field("forced_down", "forced_down", 11),
)
AGGREGATE = FieldTable(
    Aggregate,
    Field("availability_zone", lambda row, view: row["metadata"].get("availability_zone")),
    Field("created_at", lambda row, view: micros(row["created_at_us"])),
    constant("deleted", value=False),
    constant("deleted_at", None),
    Field("hosts", "hosts"),
    Field("id", "id"),
    Field("metadata", "metadata"),
    Field("name", "name"),
    Field("updated_at", lambda row, view: micros(row["updated_at_us"])),
    Field("uuid", "uuid", 41),
)
OWN_SERVICE = FieldTable(  # in GET /droveway/v1/services; times in microseconds since 1970
    ServiceRow,
    Field("id", "uuid"),
    Field("binary", "binary"),
    Field("host", "host"),
    Field("zone", "zone"),
    Field("word", state),
    Field("state", "state"),
    Field("since_us", "since_us"),
    Field("reason", "reason"),
    Field("disabled", "disabled"),
    Field("disabled_reason", "disabled_reason"),
    Field("forced_down", "forced_down"),
    Field("report_count", "report_count"),
    Field("created_at_us", "created_at_us"),
    Field("updated_at_us", "updated_at_us"),
)
