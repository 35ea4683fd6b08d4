"""What tables are made of: their one collection, and the kinds of columns that several have."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import BigInteger, Integer, MetaData, String, Text, TypeDecorator


class Json(TypeDecorator[Any]):
    """A JSON value in a text column; msgspec on both sides."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        """SQLAlchemy's own would call two functions more for each value, of which long lists have many."""
        return _decoded


def _decoded(value: Any) -> Any:
    return None if value is None else msgspec.json.decode(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
ID = String(36)
LONG_ID = BigInteger().with_variant(Integer(), "sqlite")  # numbered by the database: 2^31 events are not many
