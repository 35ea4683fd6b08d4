"""The types of rows are those of the tables: the same columns, nullable where those are, of their values' types."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from sqlalchemy import Column, create_engine, insert, select
from sqlalchemy.types import BigInteger, Boolean, Float, Integer, String, TypeEngine

from droveway.store import rows
from droveway.store.engine import results
from droveway.store.identity import rows as identity_rows
from droveway.store.network import rows as network_rows
from droveway.store.schema import Json, metadata
from droveway.store.volume import rows as volume_rows

T = metadata.tables
WHOLE = {
    identity_rows.DomainRow: "domains",
    identity_rows.ProjectRow: "projects",
    identity_rows.UserRow: "users",
    identity_rows.GroupRow: "user_groups",
    identity_rows.RoleRow: "roles",
    identity_rows.ApplicationCredentialRow: "application_credentials",
    identity_rows.CredentialRow: "credentials",
    identity_rows.RegionRow: "regions",
    identity_rows.CatalogServiceRow: "catalog_services",
    identity_rows.EndpointRow: "endpoints",
    rows.ImageRow: "images",
    rows.ImageMemberRow: "image_members",
    rows.FlavorRow: "flavors",
    rows.CertificateRow: "certificates",
    rows.HostRow: "hosts",
    rows.AggregateRow: "aggregates",
    rows.ServiceRow: "services",
    rows.JoinTokenRow: "join_tokens",
    rows.InstanceRow: "instances",
    rows.ConsoleTokenRow: "console_tokens",
    rows.ServerGroupRow: "server_groups",
    rows.KeypairRow: "keypairs",
    rows.GuestDataRow: "guest_data",
    rows.ServerPortRow: "server_ports",
    rows.PlacementRow: "placements",
    rows.MigrationRow: "migrations",
    rows.PredictionRow: "migration_predictions",
    rows.FileCleanupRow: "file_cleanups",
    rows.ServerRequestRow: "server_requests",
    rows.SagaRow: "sagas",
    rows.LeaseRow: "leases",
    rows.EventRow: "events",
    network_rows.NetworkRow: "networks",
    network_rows.SubnetRow: "subnets",
    network_rows.PortRow: "ports",
    network_rows.AddressRow: "port_addresses",
    network_rows.GroupRow: "security_groups",
    network_rows.RuleRow: "security_group_rules",
    network_rows.RouterRow: "routers",
    network_rows.FloatingIpRow: "floating_ips",
    network_rows.SubnetPoolRow: "subnet_pools",
    volume_rows.BackendRow: "backends",
    volume_rows.VolumeRow: "volumes",
    volume_rows.SnapshotRow: "snapshots",
    volume_rows.AttachmentRow: "volume_attachments",
    volume_rows.VolumeTypeRow: "volume_types",
    volume_rows.VolumeQosRow: "volume_qos",
    volume_rows.TransferRow: "volume_transfers",
    volume_rows.VolumeMessageRow: "volume_messages",
    volume_rows.BackupRow: "backups",
    volume_rows.VolumePlacementRow: "volume_placements",
}
# Of what a part, or a join, is made: a column of that name in one of these tables, or one that is named here.
SUMS: dict[str, Any] = dict.fromkeys(("vcpus_used", "ram_mb_used", "disk_gb_used", "running_vms"), int)
_NAMED = ("actor_name", "actor_domain_id", "actor_domain_name", "role_name", "target_name", "target_domain_id")
NAMES: dict[str, Any] = dict.fromkeys((*_NAMED, "target_domain_name", "by_id", "on_kind", "on_id"), str)
PARTS: dict[type[Any], tuple[tuple[str, ...], dict[str, Any]]] = {
    identity_rows.AssignmentRow: (("assignments",), NAMES),
    rows.UsableRow: (("services",), {}),
    rows.HostWithUse: (("hosts", "services"), SUMS | {"service_id": int, "service_uuid": str, "service_reason": str}),
    rows.HostHealth: (("hosts",), {}),
    volume_rows.BackendWithService: (("backends", "services"), {}),
    rows.Aggregate: (("aggregates",), {"hosts": list[str]}),
    rows.BeatRow: (("services",), {"age_us": int, "is_alive": bool}),
    rows.DeferredCleanupRow: (("instances",), {"host": str}),  # where it is not null: those hosts were asked for
    rows.UsageRow: (("instances",), {"launched_at_us": int}),  # likewise
    rows.HoldingRow: (("instances",), {}),
    rows.ServerGroupWithMembers: (("server_groups",), {"members": list[str]}),
    rows.MigrationWithName: (("migrations",), {"instance_name": str}),
    rows.PredictionWithName: (("migration_predictions",), {"instance_name": str | None}),
    rows.ActionRow: (("sagas",), {"instance_id": str}),
    rows.WaitingRow: (("sagas", "instances"), {"blocked": str}),  # likewise
    network_rows.StandardRow: (("networks",), {}),
    volume_rows.OwnedRow: (("volumes",), {}),
    network_rows.Network: (("networks",), {"subnets": list[str]}),
    network_rows.Port: (("ports",), {"addresses": list[tuple[str, str]], "groups": list[str]}),
    network_rows.Group: (("security_groups",), {"rules": list[network_rows.RuleRow]}),
    network_rows.Router: (("routers",), {"gateway_addresses": list[tuple[str, str]]}),
}
PYTHON: tuple[tuple[type[TypeEngine[Any]], type], ...] = (
    (Boolean, bool),
    (BigInteger, int),
    (Integer, int),
    (Float, float),
    (String, str),
)


def hints(row_type: type[Any]) -> dict[str, Any]:
    return get_type_hints(row_type, include_extras=True)


def disagreement(column: Column[Any], hint: Any) -> str | None:
    """Why a value of that column may be none of that type."""
    options = set(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else {hint}
    if (type(None) in options) is not bool(column.nullable):
        return f"{column} is {'' if column.nullable else 'not '}nullable, and its type is {hint}"
    (inner,) = options - {type(None)}
    if isinstance(column.type, Json):
        return None if get_origin(inner) in (dict, list) else f"{column} is JSON, and its type is {hint}"
    wanted = next(python for sql, python in PYTHON if isinstance(column.type, sql))
    return None if inner is wanted else f"{column} is {wanted.__name__}, and its type is {hint}"


@pytest.mark.parametrize("row_type", WHOLE, ids=lambda one: one.__name__)
def test_a_row_is_its_table(row_type: type[Any]) -> None:
    table = T[WHOLE[row_type]]
    found = hints(row_type)
    assert set(found) == set(table.c.keys())
    assert [why for name, hint in found.items() if (why := disagreement(table.c[name], hint))] == []


@pytest.mark.parametrize("row_type", PARTS, ids=lambda one: one.__name__)
def test_a_part_is_of_its_tables(row_type: type[Any]) -> None:
    tables, own = PARTS[row_type]
    for name, hint in hints(row_type).items():
        if name in own:
            assert hint == own[name], name
            continue
        columns = [T[table].c[name] for table in tables if name in T[table].c]
        assert columns, f"no column {name} in {tables}"
        assert disagreement(columns[0], hint) is None


def test_every_type_is_compared() -> None:
    known = {
        one
        for module in (rows, identity_rows, network_rows, volume_rows)
        for one in vars(module).values()
        if is_typeddict(one)
    }
    assert known == WHOLE.keys() | PARTS.keys()


def test_a_drift_is_found() -> None:
    c = T["services"].c
    assert disagreement(c.state, int)
    assert disagreement(c.state, str | None)
    assert disagreement(c.since_us, int)
    assert disagreement(c.disabled, int)
    assert disagreement(T["events"].c.body, str)
    assert disagreement(c.since_us, int | None) is None


def test_what_was_not_selected_is_an_assertion() -> None:
    """Nobody gets a row of which the type promises a column that is not there."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    leases = T["leases"]
    with engine.connect() as connection:
        connection.execute(insert(leases).values(name="judge", owner="a", epoch=1, counter=7))
        row = {"name": "judge", "owner": "a", "epoch": 1, "counter": 7}
        assert results.first(rows.LeaseRow, connection.execute(select(leases))) == row
        assert results.every(rows.LeaseRow, connection.execute(select(leases))) == [row]
        assert list(results.one_by_one(rows.LeaseRow, connection.execute(select(leases)))) == [row]
        assert results.first(rows.LeaseRow, connection.execute(select(leases).where(leases.c.epoch == 9))) is None
        for query in (select(leases.c.name), select(leases, leases.c.epoch.label("more"))):
            with pytest.raises(AssertionError, match="LeaseRow is not what was selected"):
                results.every(rows.LeaseRow, connection.execute(query))
