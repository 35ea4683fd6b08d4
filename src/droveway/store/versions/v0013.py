"""What is wrong with a host or a service is its `reason`: columns, and the same key in stored JSON."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
JSON_TEXT = (("events", "body"), ("placements", "body"), ("sagas", "params"), ("sagas", "notes"))


def upgrade() -> None:
    op.alter_column("hosts", "sentence", new_column_name="reason")
    op.alter_column("services", "sentence", new_column_name="reason")
    # In JSON a quote inside a value is escaped, so that this text is a key wherever it is found.
    for table, column in JSON_TEXT:
        op.execute(
            f"""UPDATE {table} SET {column} = replace({column}, '"sentence":', '"reason":')
                WHERE {column} LIKE '%"sentence":%'"""
        )
