"""Domains and projects are changed and removed. What still holds something is not removed, and what is disabled ends
every token for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, func, insert, literal, or_, select, union_all, update

from droveway.domain.faults import Conflict, Forbidden
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import (
    CHANGED,
    DEFAULT_DOMAIN_ID,
    end_tokens,
    find_domain,
    find_project,
    list_projects,
    must_have_admin,
    new_id,
    there,
)
from droveway.store.identity.rows import ProjectRow
from droveway.store.identity.tables import (
    application_credentials,
    assignments,
    credentials,
    domains,
    group_members,
    project_ancestors,
    projects,
    tokens,
    user_groups,
    users,
)
from droveway.store.network import tables as network
from droveway.store.schema import flavor_access, images, instances, keypairs, quotas, server_groups
from droveway.store.volume import tables as volume

DEPTH_MAX = 5  # projects above one another
FIRST_PROJECT = "admin"
_HOLDS: tuple[tuple[str, Table, ColumnElement[bool]], ...] = (
    ("servers", instances, ~instances.c.deleted),
    ("server groups", server_groups, literal(True)),
    ("images", images, images.c.status != "deleted"),
    ("networks", network.networks, literal(True)),
    ("subnets", network.subnets, literal(True)),
    ("subnet pools", network.subnet_pools, literal(True)),
    ("ports", network.ports, literal(True)),
    ("routers", network.routers, literal(True)),
    ("floating IPs", network.floating_ips, literal(True)),
    ("security groups", network.security_groups, network.security_groups.c.name != "default"),
    ("volumes", volume.volumes, literal(True)),
    ("volume snapshots", volume.snapshots, literal(True)),
    ("volume backups", volume.backups, literal(True)),
)


# -- domains ----------------------------------------------------------------------------------------------------------
def add_domain(tx: Tx, values: Mapping[str, Any]) -> str:
    _domain_name_is_free(tx, values["name"])
    domain_id = new_id(tx)
    tx.execute(insert(domains).values(id=domain_id, **values))
    return domain_id


def _domain_name_is_free(tx: Tx, name: str) -> None:
    if find_domain(tx, name=name) is not None:
        raise Conflict(f"There is a domain {name} already.")


def update_domain(tx: Tx, domain_id: str, values: Mapping[str, Any]) -> None:
    """Disabled, it ends the tokens of its users and those for its projects. Raises Conflict."""
    row = there(find_domain(tx, id=domain_id), "domain", domain_id)
    if "name" in values and values["name"] != row["name"]:
        _domain_name_is_free(tx, values["name"])
    if values:
        tx.execute(update(domains).where(domains.c.id == domain_id).values(**values))
    if values.get("enabled") is False:
        its_users = select(users.c.id).where(users.c.domain_id == domain_id)
        its_projects = select(projects.c.id).where(projects.c.domain_id == domain_id)
        end_tokens(
            tx,
            or_(
                tokens.c.domain_id == domain_id,
                tokens.c.user_id.in_(its_users),
                tokens.c.project_id.in_(its_projects),
            ),
        )
        must_have_admin(tx)
    tx.nudges.append(CHANGED)


def remove_domain(tx: Tx, domain_id: str) -> None:
    """With its projects, users and groups. Raises Forbidden while it is enabled, Conflict while a project of it holds
    something."""
    row = there(find_domain(tx, id=domain_id), "domain", domain_id)
    if domain_id == DEFAULT_DOMAIN_ID:
        raise Forbidden("The default domain is the program's own, and stays.")
    if row["enabled"]:
        raise Forbidden(
            f"The domain {row['name']} is enabled: disable it first, and delete it when that has done no harm."
        )
    of_projects = select(projects.c.id).where(projects.c.domain_id == domain_id)
    _must_hold_nothing(tx, of_projects, f"The domain {row['name']}")
    _forget_projects(tx, of_projects)
    people = select(users.c.id).where(users.c.domain_id == domain_id)
    groups = select(user_groups.c.id).where(user_groups.c.domain_id == domain_id)
    tx.execute(delete(group_members).where(group_members.c.user_id.in_(people) | group_members.c.group_id.in_(groups)))
    for table in (application_credentials, credentials, tokens, keypairs):
        tx.execute(delete(table).where(table.c.user_id.in_(people)))
    tx.execute(delete(tokens).where(tokens.c.domain_id == domain_id))
    who = assignments.c.actor_id.in_(people) | assignments.c.actor_id.in_(groups)
    tx.execute(delete(assignments).where(who | (assignments.c.target_id == domain_id)))
    for table in (users, user_groups):
        tx.execute(delete(table).where(table.c.domain_id == domain_id))
    tx.execute(delete(domains).where(domains.c.id == domain_id))
    must_have_admin(tx)
    tx.nudges.append(CHANGED)


# -- projects ---------------------------------------------------------------------------------------------------------
def parent_of(tx: Tx, parent_id: str | None, domain_id: str) -> ProjectRow | None:
    """The project in which a new one shall stand; None where that is the domain itself. Raises Conflict, Forbidden."""
    if parent_id in (None, domain_id):
        return None
    assert parent_id is not None, "it was looked at"
    parent = there(find_project(tx, id=parent_id), "project", parent_id)
    if parent["domain_id"] != domain_id:
        raise Conflict(f"The project {parent['name']} is of another domain: a project stands in one of its own.")
    if not parent["enabled"]:
        raise Forbidden(f"The project {parent['name']} is disabled: nothing new can stand in it.")
    above = tx.execute(select(func.count()).where(project_ancestors.c.project_id == parent_id)).scalar_one()
    if above >= DEPTH_MAX:
        raise Forbidden(f"The project {parent['name']} stands {above} deep already; {DEPTH_MAX} is the most.")
    return parent


def update_project(tx: Tx, project_id: str, values: Mapping[str, Any]) -> None:
    """Disabled, it ends every token for it. Raises Conflict when its new name is taken, Forbidden when it would be
    disabled above an enabled project, or enabled below a disabled one."""
    row = there(find_project(tx, id=project_id), "project", project_id)
    name = values.get("name", row["name"])
    if name != row["name"] and find_project(tx, name=name, domain_id=row["domain_id"]) is not None:
        raise Conflict(f"There is a project {name} already.")
    if values.get("enabled") is False and _related(tx, project_id, below=True, enabled=True):
        raise Forbidden(f"Cannot disable the project {row['name']}: an enabled project stands in it.")
    if values.get("enabled") is True and _related(tx, project_id, below=False, enabled=False):
        raise Forbidden(f"Cannot enable the project {row['name']}: it stands in a disabled one.")
    if values:
        tx.execute(update(projects).where(projects.c.id == project_id).values(**values))
    if values.get("enabled") is False:
        end_tokens(tx, tokens.c.project_id == project_id)
        must_have_admin(tx)
    tx.nudges.append(CHANGED)


def _related(tx: Tx, project_id: str, *, below: bool, enabled: bool) -> bool:
    """Whether one that stands in it, or in which it stands, is so."""
    one, other = project_ancestors.c.project_id, project_ancestors.c.ancestor_id
    if not below:
        one, other = other, one
    query = select(projects.c.id).join(project_ancestors, projects.c.id == one)
    return tx.execute(query.where(other == project_id, projects.c.enabled.is_(enabled)).limit(1)).first() is not None


def related(tx: Tx, project_id: str, *, below: bool) -> list[ProjectRow]:
    """All that stand in it, or all in which it stands."""
    one, other = project_ancestors.c.project_id, project_ancestors.c.ancestor_id
    if not below:
        one, other = other, one
    ids = tx.execute(select(one).where(other == project_id)).scalars().all()
    return list_projects(tx, id=list(ids))


def remove_project(tx: Tx, project_id: str) -> None:
    """Raises Forbidden when another stands in it, Conflict when it still holds something."""
    row = there(find_project(tx, id=project_id), "project", project_id)
    if row["name"] == FIRST_PROJECT and row["domain_id"] == DEFAULT_DOMAIN_ID:
        raise Conflict(
            f"The project {FIRST_PROJECT} is the program's own, which would make it again at its next start."
        )
    query = select(project_ancestors.c.project_id).where(project_ancestors.c.ancestor_id == project_id)
    if tx.execute(query.limit(1)).first() is not None:
        raise Forbidden(f"The project {row['name']} has others in it; delete them first.")
    this = select(projects.c.id).where(projects.c.id == project_id)
    _must_hold_nothing(tx, this, f"The project {row['name']}")
    _forget_projects(tx, this)
    must_have_admin(tx)
    tx.nudges.append(CHANGED)


def _must_hold_nothing(tx: Tx, of_projects: Any, what: str) -> None:
    counts = [
        select(literal(name).label("name"), func.count().label("number")).where(
            table.c.project_id.in_(of_projects), condition
        )
        for name, table, condition in _HOLDS
    ]
    held = [f"{row.number} {row.name}" for row in tx.execute(union_all(*counts)) if row.number]
    if held:
        raise Conflict(f"{what} still has {', '.join(held)}: delete them first, or disable it instead.")


def _forget_projects(tx: Tx, of_projects: Any) -> None:
    """With what is only about them: roles there, tokens, keys, quotas, their default security group."""
    groups = select(network.security_groups.c.id).where(network.security_groups.c.project_id.in_(of_projects))
    rules = network.security_group_rules
    tx.execute(delete(rules).where(rules.c.group_id.in_(groups)))
    tx.execute(delete(network.rbac_policies).where(network.rbac_policies.c.target.in_(of_projects)))
    scopes = select(literal("project:") + projects.c.id).where(projects.c.id.in_(of_projects))
    for limits in (quotas, volume.volume_quotas):
        tx.execute(delete(limits).where(limits.c.scope.in_(scopes)))
    for table in (volume.volume_type_access, volume.volume_type_defaults, volume.volume_messages):
        tx.execute(delete(table).where(table.c.project_id.in_(of_projects)))
    for table in (network.security_groups, network.network_quotas, flavor_access, application_credentials):
        tx.execute(delete(table).where(table.c.project_id.in_(of_projects)))
    for table in (tokens, credentials):
        tx.execute(delete(table).where(table.c.project_id.in_(of_projects)))
    tx.execute(delete(assignments).where(assignments.c.target_id.in_(of_projects)))
    tx.execute(delete(project_ancestors).where(project_ancestors.c.project_id.in_(of_projects)))
    tx.execute(delete(projects).where(projects.c.id.in_(of_projects)))
