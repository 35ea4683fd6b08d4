"""A database of an older revision, with rows in it, becomes one of the newest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Integer, MetaData, Table, insert

from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store import hosts, inventories, quotas, upgrade
from droveway.store.engines import open_engine
from droveway.store.schema import metadata
from droveway.store.transaction import DiskStore, Tx
from tests.store import databases


def bring_to(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    steps = EnvironmentContext(config, script, fn=lambda rev, _: script._upgrade_revs(revision, rev))
    with steps, open_engine(url).connect().execution_options(upgrades=True) as connection, connection.begin():
        steps.configure(connection=connection)
        with steps.begin_transaction():
            steps.run_migrations()


def add(connection: Any, table_name: str, /, **values: Any) -> None:
    """A row; what must not be null and is not given is 0, or {} as text."""
    table = Table(table_name, MetaData(), autoload_with=connection)
    rest = {
        column.name: 0 if isinstance(column.type, Integer) else False if "BOOL" in str(column.type) else "{}"
        for column in table.columns if not column.nullable
    }  # fmt: skip
    connection.execute(insert(table).values(rest | values))


@pytest.fixture
def old(kind: str, tmp_path: Path) -> str:
    """At revision 0003: one host that has reported, with one guest."""
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0003")
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        said = '{"hypervisor_hostname":"h1.lab","vcpus":4,"memory_mb":4096,"disk_gb":40}'  # an older agent's
        add(connection, "hosts", name="h1", id=1, uuid="u1", zone="nova", resources=said, hypervisor_up=True, claims=3)
        add(connection, "services", id=1, uuid="s1", host="h1", binary="nova-compute", is_up=True)
        add(connection, "instances", id="i1", number=1, project_id="p1", host="h1", vcpus=2, ram_mb=512, disk_gb=1,
            vm_state="active")  # fmt: skip
    return url


def test_rows_of_before_are_there_and_count(old: str) -> None:
    upgrade.bring_up_to_date(old)
    with open_engine(old).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def read(tx: Tx) -> None:
        (facts,) = hosts.facts_of_all(tx)
        assert (facts.vcpus, facts.vcpus_used, facts.claims, facts.refused) == (4, 2, 3, "")
        assert (facts.cells, facts.held_cells, facts.aggregates) == ((), (), {})
        assert hosts.standing(tx, ["h1"])["h1"].generation == 0
        assert quotas.usage(tx, "p1") == quotas.Usage(1, 2, 512)
        (held,) = inventories.on_host(tx, "h1")
        assert (held.consumer, held.vcpus, held.pinned) == ("i1", 2, 0)

    async def run() -> None:
        store = DiskStore(old, SystemClock(), SystemNames())
        try:
            await store.read(read)
        finally:
            await store.close()

    asyncio.run(run())
