"""Heartbeats in the services table, stamped and evaluated by the database's own clock (driver `db`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, bindparam, func, literal, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services as service_rows
from droveway.store.rows import BeatRow
from droveway.store.schema import services


class DatabaseNow(FunctionElement[int]):
    """The database's own time of this very statement, in microseconds since 1970."""

    type = BigInteger()
    inherit_cache = True


@compiles(DatabaseNow, "sqlite")
def _sqlite_now(_element: DatabaseNow, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"


@compiles(DatabaseNow, "postgresql")
def _postgresql_now(_element: DatabaseNow, _compiler: SQLCompiler, **_options: Any) -> str:
    # not now(), which is the time at which the transaction began
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


_MEMBER = services.c.host + literal("/") + services.c.binary
_RECORD = Prepared(
    update(services)
    .where(in_list(_MEMBER, "members"))
    .values(report_count=services.c.report_count + 1, updated_at_us=DatabaseNow())
)
_AGE_US = (DatabaseNow() - func.coalesce(services.c.updated_at_us, services.c.created_at_us)).label("age_us")
_ALIVE = (
    func.abs(DatabaseNow() - func.coalesce(services.c.updated_at_us, services.c.created_at_us))
    <= bindparam("down_us", type_=BigInteger())
).label("is_alive")
_EVALUATED = select(
    services.c.host, services.c.binary, services.c.report_count, services.c.updated_at_us, _AGE_US, _ALIVE
).order_by(services.c.id)
_STAMP_NEW = Prepared(
    update(services)
    .where(
        services.c.host == bindparam("at_host"),
        services.c.binary == bindparam("of_binary"),
        services.c.updated_at_us.is_(None),
        services.c.report_count == 0,
    )
    .values(created_at_us=DatabaseNow())
)


def record(tx: Tx, members: Collection[str]) -> int:
    """One beat of each `host/binary`, in one statement. How many of them there are services for."""
    return int(tx.execute(_RECORD, {"members": members}).rowcount)


def join(tx: Tx, host: str, binary: str, zone: str) -> None:
    """There is such a service; a new one is young by the database's clock, not by ours."""
    before = tx.execute(select(services.c.id).where(services.c.host == host, services.c.binary == binary)).first()
    service_rows.register(tx, host, binary, zone)
    if before is None:
        tx.execute(_STAMP_NEW, {"at_host": host, "of_binary": binary})


def evaluate(tx: Tx, service_down_time_s: float, host: str | None = None, binary: str | None = None) -> list[BeatRow]:
    """Services with the verdict of row A2: a heartbeat is too old, or too far in the future, or good."""
    query = _EVALUATED
    if host is not None:
        query = query.where(services.c.host == host)
    if binary is not None:
        query = query.where(services.c.binary == binary)
    return results.every(BeatRow, tx.execute(query, {"down_us": round(service_down_time_s * 1_000_000)}))
