"""A prepared statement finds and does what SQLAlchemy's own way does, on each database."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import BindParameter, Boolean, CompoundSelect, Integer, Select, bindparam, func, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql import visitors

import droveway.store
from droveway.domain.model import Flavor, of_saga
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.in_list import _Names
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services
from droveway.store.identity import accounts
from droveway.store.identity.tables import domains, roles
from droveway.store.image import image_tickets
from droveway.store.schema import events, leases
from droveway.store.schema import services as service_rows
from droveway.store.work.events import record
from tests.store.test_both import in_store


def of_the_store() -> Iterator[tuple[str, Prepared]]:
    for found in pkgutil.walk_packages(droveway.store.__path__, "droveway.store."):
        if ".versions" not in found.name:
            for name, value in vars(importlib.import_module(found.name)).items():
                if isinstance(value, Prepared):
                    yield f"{found.name}.{name}", value


STATEMENTS = dict(of_the_store())
READS = {name: one for name, one in STATEMENTS.items() if isinstance(one.statement, Select | CompoundSelect)}


def _value(bind: BindParameter[Any]) -> object:
    if isinstance(bind.type, _Names):
        return ["h1"]
    if isinstance(bind.type, Boolean):
        return True
    return 1 if isinstance(bind.type, Integer) or bind.key == "most" else "h1"


def _asked(statement: Any) -> dict[str, object]:
    binds = (one for one in visitors.iterate(statement) if isinstance(one, BindParameter))
    return {one.key: _value(one) for one in binds if one.required}


def _some_rows(tx: Tx) -> None:
    accounts.seed(tx, "hash")
    hosts.join(tx, "h1", "nova")
    services.register(tx, "h1", hosts.COMPUTE, "nova")
    instances.create(tx, NewInstance("p", "u", "one", "h", Flavor("1", "f", 1, 1, 1), None))
    record(tx, "saga", of_saga("h1"), {"some": ["json"]})
    image_tickets.replace(tx, image_tickets.newest(tx))


async def test_every_read_of_the_store_finds_what_sqlalchemy_finds(url: str) -> None:
    def compare(tx: Tx) -> int:
        rows = 0
        for name, prepared in READS.items():
            wanted = _asked(prepared.statement)
            ours, theirs = tx.execute(prepared, wanted), tx.execute(prepared.statement, wanted)
            assert ours.keys() == tuple(theirs.keys()), name
            if "_AGE_US" in name or "DatabaseNow" in str(prepared.statement):
                continue
            found = [tuple(row) for row in ours]
            assert found == [tuple(row) for row in theirs], name
            rows += len(found)
        return rows

    async with in_store(url) as store:
        await store.run(_some_rows)
        assert len(READS) > 50
        assert await store.read(compare) > 20, "hardly anything is compared"


async def test_values_are_converted_on_both_ways(url: str) -> None:
    put = Prepared(insert(events))
    got = Prepared(select(events.c.body, events.c.kind).where(events.c.kind == bindparam("of")))
    up = Prepared(select(service_rows.c.is_up, service_rows.c.host))
    body = {"text": "ä", "numbers": [1, None], "nested": {"yes": True}}
    row = {"at_us": 1, "kind": "k", "subject_kind": "saga", "subject_id": "s", "project_id": None, "body": body}
    async with in_store(url) as store:
        await store.run(_some_rows)
        await store.run(lambda tx: tx.execute(put, [row, row | {"body": {}}]).rowcount)
        await store.run(lambda tx: tx.execute(put, row | {"kind": "other"}).rowcount)
        assert await store.read(lambda tx: [one.body for one in tx.execute(got, {"of": "k"})]) == [body, {}]
        assert await store.read(lambda tx: tx.execute(got, {"of": "other"}).one()) == (body, "other")
        (is_up,) = await store.read(lambda tx: list(tx.execute(up).scalars()))
        assert type(is_up) is bool


async def test_a_default_of_the_table_is_filled_in_and_constants_stay(url: str) -> None:
    put = Prepared(insert(domains))
    named = Prepared(select(domains.c.description, func.count()).where(domains.c.name == "d"))
    grouped = Prepared(named.statement.group_by(domains.c.id))  # type: ignore[union-attr]
    async with in_store(url) as store:
        await store.run(lambda tx: tx.execute(put, {"id": "1", "name": "d"}).rowcount)
        await store.run(lambda tx: tx.execute(put, {"id": "2", "name": "e", "description": "said"}).rowcount)
        assert await store.read(lambda tx: tx.execute(grouped).one()) == ("", 1)
        assert await store.read(lambda tx: tx.execute(Prepared(select(domains.c.id))).fetchall()) == [("1",), ("2",)]


async def test_what_the_database_refuses_is_raised_as_by_sqlalchemy_and_nothing_is_kept(url: str) -> None:
    put = Prepared(insert(leases))

    def twice(tx: Tx) -> None:
        tx.execute(put, {"name": "a", "owner": "o", "epoch": 1, "counter": 0})
        tx.execute(put, {"name": "a", "owner": "secret", "epoch": 1, "counter": 0})

    count = Prepared(select(func.count()).select_from(leases))
    async with in_store(url) as store:
        with pytest.raises(IntegrityError) as raised:
            await store.run(twice)
        assert isinstance(raised.value, DBAPIError)
        assert "INSERT INTO leases" in str(raised.value)
        assert "secret" not in str(raised.value).replace(str(raised.value.orig), "")
        assert await store.read(lambda tx: tx.execute(count).scalar_one()) == 0


async def test_rows_are_had_one_or_all_at_a_time(url: str) -> None:
    names = Prepared(select(roles.c.name).order_by(roles.c.name))
    one = Prepared(select(roles.c.name).where(roles.c.name == bindparam("of")))
    async with in_store(url) as store:
        await store.run(_some_rows)
        found = await store.read(lambda tx: [row.name for row in tx.execute(names).fetchall()])
        assert found == sorted(found)
        assert await store.read(lambda tx: tx.execute(names).first()) == (found[0],)
        assert await store.read(lambda tx: tx.execute(names).scalar()) == found[0]
        assert await store.read(lambda tx: tx.execute(one, {"of": "nobody"}).first()) is None
        assert await store.read(lambda tx: tx.execute(one, {"of": "nobody"}).scalar()) is None
        with pytest.raises(ValueError, match="not enough"):
            await store.read(lambda tx: tx.execute(one, {"of": "nobody"}).one())


def test_a_statement_whose_text_depends_on_its_values_is_no_prepared_one() -> None:
    from sqlalchemy import create_engine

    several = Prepared(select(roles.c.name).where(roles.c.name.in_(bindparam("names", expanding=True))))
    with create_engine("sqlite://").connect() as connection, pytest.raises(AssertionError, match="cannot be prepared"):
        several.run(connection, {"names": ["a"]})
