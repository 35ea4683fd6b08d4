"""A database of an older revision, with rows in it, becomes one of the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Float, Integer, MetaData, Table, insert, inspect, select, text

from droveway.domain.faults import WrongConfiguration
from droveway.domain.hardware import Hardware
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store import upgrade
from droveway.store.compute import instances, inventories, quotas
from droveway.store.engine.databases import open_engine
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.network import networks
from droveway.store.network.tables import rbac_policies
from droveway.store.schema import events, metadata, migrations
from tests.store import databases

pytestmark = pytest.mark.slow


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
        column.name: 0 if isinstance(column.type, Integer | Float) else False if "BOOL" in str(column.type) else "{}"
        for column in table.columns
        if not column.nullable
    }
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
        add(
            connection,
            "instances",
            id="i1",
            number=1,
            project_id="p1",
            host="h1",
            vcpus=2,
            ram_mb=512,
            disk_gb=1,
            vm_state="active",
        )
    return url


async def test_networks_of_before_have_the_policies_of_what_all_may_do(kind: str, tmp_path: Path) -> None:
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0016")
    ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
    kinds = ((False, False), (True, False), (False, True), (True, True))
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        for vni, (network_id, (shared, external)) in enumerate(zip(ids, kinds, strict=True), 1):
            more = {"shared": shared, "external": external, "vni": vni, "tags": "[]"}
            add(connection, "networks", id=network_id, project_id="p1", **more)
    upgrade.bring_up_to_date(url)
    store = DiskStore(url, SystemClock(), SystemNames())

    def read(tx: Tx) -> set[tuple[str, str, str, str]]:
        rows = tx.execute(select(rbac_policies)).all()
        return {(row.object_id, row.action, row.target, row.project_id) for row in rows}

    shared, external = "access_as_shared", "access_as_external"
    wanted = ((1, shared), (2, external), (3, shared), (3, external))
    assert await store.read(read) == {(ids[number], action, "*", "p1") for number, action in wanted}
    await store.run(lambda tx: networks.update(tx, ids[1], {"shared": False}))
    await store.run(lambda tx: networks.remove(tx, ids[3]))
    assert await store.read(read) == {(ids[2], external, "*", "p1")}


async def test_rows_of_before_are_there_and_count(old: str) -> None:
    upgrade.bring_up_to_date(old)
    with open_engine(old).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def read(tx: Tx) -> None:
        (facts,) = hosts.facts_of_all(tx)
        assert (facts.vcpus, facts.vcpus_used, facts.claims, facts.refused) == (4, 2, 3, "")
        assert (facts.cells, facts.held_cells, facts.aggregates) == ((), (), {})
        assert host_reports.standing(tx, ["h1"])["h1"].generation == 0
        assert quotas.usage(tx, "p1") == quotas.Usage(1, 2, 512)
        (held,) = inventories.on_host(tx, "h1")
        assert (held.consumer, held.vcpus, held.pinned) == ("i1", 2, 0)

    store = DiskStore(old, SystemClock(), SystemNames())
    try:
        await store.read(read)
    finally:
        await store.close()


async def test_services_of_before_have_a_topic_and_those_of_unknown_kind_are_down(kind: str, tmp_path: Path) -> None:
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0007")
    made = (("h1", "nova-compute"), ("control", "nova-scheduler"), ("control", "nova-conductor"), ("h1", "something"))
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        for number, (host, binary) in enumerate(made):
            row = {"id": number, "uuid": f"s{number}", "host": host, "binary": binary, "zone": "nova", "is_up": True}
            add(connection, "services", state="alive", **row)
    upgrade.bring_up_to_date(url)
    with open_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def read(tx: Tx) -> None:
        rows = {row["binary"]: (row["topic"], row["zone"], row["is_up"]) for row in services.list_all(tx)}
        assert rows == {
            "nova-compute": ("compute", "nova", True),
            "nova-scheduler": ("scheduler", "internal", True),
            "nova-conductor": ("conductor", "internal", True),
            "something": ("", "internal", False),
        }
        assert [row["binary"] for row in services.on_hosts(tx)] == ["nova-compute"]

    store = DiskStore(url, SystemClock(), SystemNames())
    try:
        await store.read(read)
    finally:
        await store.close()


async def test_servers_of_before_take_what_was_read_of_their_image_and_hold_its_size(kind: str, tmp_path: Path) -> None:
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0004")
    flavor = '{"id":"f","name":"f","vcpus":1,"ram_mb":128,"disk_gb":%d,"ephemeral_gb":%d,"swap_mb":%d}'
    said = '{"hw_machine_type":"q35","hw_disk_bus":"ide","os_distro":"debian"}'  # the bus was not heeded: no change now
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        add(connection, "hosts", name="h1", id=1, uuid="u1", zone="nova", hypervisor_up=True)
        add(connection, "images", id="big", properties=said, virtual_size_bytes=900 * 2**30 + 1, status="deleted")
        made_of = ((None, 3, 0, 0), ("big", 0, 0, 0), ("big", 7, 2, 1025), ("no", 0, 0, 0))
        for number, (image, *sizes) in enumerate(made_of):
            add(
                connection,
                "instances",
                id=f"i{number}",
                number=number,
                project_id="p",
                image_id=image,
                host="h1",
                flavor=flavor % tuple(sizes),
                disk_gb=sizes[0],
                vm_state="active",
            )
        add(connection, "migrations", id=1, uuid="m1", instance_id="i1", destination="h2", holds_claim=True)
    upgrade.bring_up_to_date(url)
    with open_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def read(tx: Tx) -> None:
        rows = instances.by_ids(tx, [f"i{number}" for number in range(4)])
        assert [rows[f"i{number}"]["disk_gb"] for number in range(4)] == [3, 901, 7 + 2 + 2, 0]
        kept = {"hw_machine_type": "q35"}
        assert [rows[f"i{number}"]["image_properties"] for number in range(4)] == [{}, kept, kept, {}]
        spec = instances.spec(tx, rows["i2"], "/images", with_image=False)
        assert (spec.machine_type, spec.disk_gb, spec.ephemeral_gb, spec.swap_mb) == ("q35", 7, 2, 1025)
        assert spec.hardware == Hardware()
        assert tx.execute(select(migrations.c.disk_gb)).scalar_one() == 901

    store = DiskStore(url, SystemClock(), SystemNames())
    try:
        await store.read(read)
    finally:
        await store.close()


def test_events_of_before_are_about_what_their_kind_told(kind: str, tmp_path: Path) -> None:
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0007")
    told = [
        ("saga", "s1"),
        ("service", "h1/nova-compute"),
        ("host", "h1"),
        ("aggregate", "fast"),
        ("instance", "i1"),
        ("alarm", "i1"),
        ("alarm", "h1"),
    ]
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        add(connection, "hosts", name="h1", id=1, uuid="u1", zone="nova")
        for number, (what, subject) in enumerate(told):
            add(connection, "events", id=number + 1, kind=what, subject=subject, at_us=number)
    upgrade.bring_up_to_date(url)
    with open_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        rows = connection.execute(select(events).order_by(events.c.id)).mappings().all()
    assert [(row["kind"], row["subject_kind"], row["subject_id"]) for row in rows] == [
        (what, "host" if (what, subject) == ("alarm", "h1") else "instance" if what == "alarm" else what, subject)
        for what, subject in told
    ]


def test_every_row_of_the_release_before_is_there_and_says_the_same(kind: str, tmp_path: Path) -> None:
    """One of each table; the columns that have another name now are named."""
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0007")
    names = {("sagas", "instance_id"): "subject_id", ("events", "subject"): "subject_id"}
    names |= {("hosts", "sentence"): "reason", ("services", "sentence"): "reason", ("sagas", "position"): ""}
    names |= {("role_assignments", "user_id"): "actor_id", ("role_assignments", "project_id"): "target_id"}
    names |= {("domain_role_assignments", "user_id"): "actor_id", ("domain_role_assignments", "domain_id"): "target_id"}
    kinds = {"role_assignments": "project", "domain_role_assignments": "domain"}  # one table now
    texts = {("events", "body"): '{"sentence":"said \\"sentence\\":","a":[1]}', ("sagas", "kind"): "boot"}
    texts[("services", "binary")] = "nova-compute"
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        before = dict[str, dict[str, Any]]()
        old = MetaData()
        old.reflect(connection)
        for table in [one.name for one in old.sorted_tables if one.name != "alembic_version"]:
            given = {column: value for (of, column), value in texts.items() if of == table}
            add(connection, table, **given)
            rows = connection.execute(select(Table(table, MetaData(), autoload_with=connection))).mappings().all()
            assert len(rows) == 1, table
            before[table] = dict(rows[0])
    upgrade.bring_up_to_date(url)
    with open_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        for table, row in before.items():
            is_now = Table("assignments" if table in kinds else table, MetaData(), autoload_with=connection)
            rows = connection.execute(select(is_now)).mappings().all()
            (after,) = [one for one in rows if table not in kinds or one["target_kind"] == kinds[table]]
            for column, value in row.items():
                column = names.get((table, column), column)  # noqa: PLW2901
                if (table, column) == ("events", "body"):
                    value = value.replace('{"sentence":', '{"reason":')  # noqa: PLW2901
                assert not column or after[column] == value, (table, column)
    assert {"instances", "sagas", "hosts", "services", "events", "images", "migrations", "tokens"} <= before.keys()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(kind: str, tmp_path: Path) -> None:
    """The release before goes on with it: all revisions are one transaction."""
    url = databases.empty() if kind == "postgresql" else f"sqlite:///{tmp_path}/old.sqlite"
    bring_to(url, "0007")
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("CREATE TABLE saga_subjects (id INTEGER)"))  # in the way of revision 0009
    with open_engine(url).connect() as connection:
        before = layout(connection)
    with pytest.raises(WrongConfiguration, match="cannot be upgraded to revision"):
        upgrade.bring_up_to_date(url)
    with open_engine(url).connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0007"
        assert layout(connection) == before


def layout(connection: Any) -> dict[str, list[str]]:
    """The columns of every table."""
    there = inspect(connection)
    return {name: [column["name"] for column in there.get_columns(name)] for name in there.get_table_names()}
