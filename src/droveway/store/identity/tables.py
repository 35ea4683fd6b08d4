"""The tables of identity: who there is, who may do what where, and where each service is.

An assignment is one row whatever it joins: a user or a group, with a role, on a project, a domain or the system. What
is above a project stands in `project_ancestors`, its domain included, so that an inherited role is found by one look.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from droveway.store.columns import Json, metadata

ID = String(64)

domains = Table(
    "domains",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True, server_default="1"),
)
projects = Table(
    "projects",
    metadata,
    Column("id", ID, primary_key=True),
    Column("domain_id", ID, ForeignKey("domains.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("parent_id", ID),  # the project it stands in; none: in its domain
    Column("tags", Json, nullable=False, server_default="[]"),
    UniqueConstraint("domain_id", "name"),
)
project_ancestors = Table(
    "project_ancestors",
    metadata,
    Column("project_id", ID, ForeignKey("projects.id"), primary_key=True),
    Column("ancestor_id", ID, primary_key=True, index=True),  # a project, or the domain
)
users = Table(
    "users",
    metadata,
    Column("id", ID, primary_key=True),
    Column("domain_id", ID, ForeignKey("domains.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("password_hash", Text, nullable=False),  # empty: none fits
    Column("default_project_id", ID),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("email", String(255)),
    Column("description", Text),
    Column("password_expires_at_us", BigInteger),
    Column("options", Json, nullable=False, server_default="{}"),
    UniqueConstraint("domain_id", "name"),
)
user_groups = Table(
    "user_groups",
    metadata,
    Column("id", ID, primary_key=True),
    Column("domain_id", ID, ForeignKey("domains.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False, default=""),
    UniqueConstraint("domain_id", "name"),
)
group_members = Table(
    "group_members",
    metadata,
    Column("group_id", ID, ForeignKey("user_groups.id"), primary_key=True),
    Column("user_id", ID, ForeignKey("users.id"), primary_key=True, index=True),
)
roles = Table(
    "roles",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("description", Text),
)
role_implications = Table(
    "role_implications",
    metadata,
    Column("prior_id", ID, ForeignKey("roles.id"), primary_key=True),
    Column("implied_id", ID, ForeignKey("roles.id"), primary_key=True),
)
assignments = Table(
    "assignments",
    metadata,
    Column("actor_kind", String(8), nullable=False),  # user, group
    Column("actor_id", ID, primary_key=True),
    Column("target_kind", String(8), primary_key=True),  # project, domain, system
    Column("target_id", ID, primary_key=True, index=True),  # of the system: all
    Column("role_id", ID, ForeignKey("roles.id"), primary_key=True),
    Column("inherited", Boolean, primary_key=True),  # not there, but in every project below
)
application_credentials = Table(
    "application_credentials",
    metadata,
    Column("id", ID, primary_key=True),
    Column("user_id", ID, ForeignKey("users.id"), nullable=False),
    Column("project_id", ID, ForeignKey("projects.id"), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("description", Text),
    Column("secret_hash", Text, nullable=False),
    Column("role_ids", Json, nullable=False),
    Column("unrestricted", Boolean, nullable=False),
    Column("expires_at_us", BigInteger),
    UniqueConstraint("user_id", "name"),
)
credentials = Table(  # keys of other kinds, EC2's among them: to check a signature the secret itself is needed
    "credentials",
    metadata,
    Column("id", ID, primary_key=True),
    Column("user_id", ID, ForeignKey("users.id"), nullable=False, index=True),
    Column("project_id", ID),
    Column("type", String(255), nullable=False),
    Column("blob", Text, nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("hash", ID, primary_key=True),  # sha256 of the token: a stolen database opens no door
    Column("audit_id", String(32), nullable=False),
    Column("user_id", ID, ForeignKey("users.id"), nullable=False),
    Column("project_id", ID),
    Column("domain_id", ID),  # good for a project, for a domain, for the system, or for nothing
    Column("is_system", Boolean, nullable=False, default=False, server_default="0"),
    Column("application_credential_id", ID),  # with which it was bought
    Column("credential_id", ID),  # the EC2 key whose signature bought it
    Column("methods", Json, nullable=False),
    Column("issued_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False, index=True),
    Index("ix_tokens_user", "user_id", "issued_at_us"),
)

# -- the catalog ------------------------------------------------------------------------------------------------------
regions = Table(
    "regions",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("description", Text, nullable=False, default=""),
    Column("parent_id", String(255)),
)
catalog_services = Table(
    "catalog_services",
    metadata,
    Column("id", ID, primary_key=True),
    Column("type", String(255), nullable=False),
    Column("name", String(255), nullable=False, default=""),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("is_own", Boolean, nullable=False),  # the program serves it
)
endpoints = Table(
    "endpoints",
    metadata,
    Column("id", ID, primary_key=True),
    Column("service_id", ID, ForeignKey("catalog_services.id"), nullable=False, index=True),
    Column("interface", String(8), nullable=False),  # public, internal, admin
    Column("region_id", String(255)),
    Column("url", Text, nullable=False),  # $(base_url)s, $(project_id)s: filled in when it is told
    Column("enabled", Boolean, nullable=False, default=True),
)
