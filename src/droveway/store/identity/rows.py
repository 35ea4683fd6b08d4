"""The rows of identity, as store/rows.py has those of the other tables."""

from __future__ import annotations

from typing import Any, TypedDict


class DomainRow(TypedDict):
    id: str
    name: str
    description: str
    enabled: bool


class ProjectRow(TypedDict):
    id: str
    domain_id: str
    name: str
    description: str
    enabled: bool
    parent_id: str | None
    tags: list[str]


class UserRow(TypedDict):
    id: str
    domain_id: str
    name: str
    password_hash: str
    default_project_id: str | None
    enabled: bool
    email: str | None
    description: str | None
    password_expires_at_us: int | None
    options: dict[str, Any]


class GroupRow(TypedDict):
    id: str
    domain_id: str
    name: str
    description: str


class RoleRow(TypedDict):
    id: str
    name: str
    description: str | None


class AssignmentRow(TypedDict):
    """A role that a user or a group has somewhere, with the names of what it joins. `by_id`: of an effective one, the
    group that has it, where the user is its member; `on_id`: likewise the place from which it is inherited."""

    actor_kind: str
    actor_id: str
    actor_name: str
    actor_domain_id: str
    actor_domain_name: str
    role_id: str
    role_name: str
    target_kind: str
    target_id: str
    target_name: str
    target_domain_id: str
    target_domain_name: str
    inherited: bool
    by_id: str
    on_kind: str
    on_id: str


class ApplicationCredentialRow(TypedDict):
    id: str
    user_id: str
    project_id: str
    name: str
    description: str | None
    secret_hash: str
    role_ids: list[str]
    unrestricted: bool
    expires_at_us: int | None


class CredentialRow(TypedDict):
    id: str
    user_id: str
    project_id: str | None
    type: str
    blob: str


class RegionRow(TypedDict):
    id: str
    description: str
    parent_id: str | None


class CatalogServiceRow(TypedDict):
    id: str
    type: str
    name: str
    description: str | None
    enabled: bool
    is_own: bool


class EndpointRow(TypedDict):
    id: str
    service_id: str
    interface: str
    region_id: str | None
    url: str
    enabled: bool
