"""The tables of networks. Addresses are rows of their own, so that the database itself gives none of them twice.

`revision` is that of the resource as clients see it; it rises with every change (store/network/changes.py).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, UniqueConstraint, text

from droveway.store.columns import ID, LONG_ID, Json, metadata

_IS_MOVING = text("moving_to <> ''")
ADDRESS = String(39)  # of either version, as ipaddress writes it


def _standard() -> tuple[Column[Any], ...]:
    """What every resource has."""
    return (
        Column("id", ID, primary_key=True),
        Column("project_id", String(64), nullable=False),
        Column("name", String(255), nullable=False, default=""),
        Column("description", String(255), nullable=False, default=""),
        Column("tags", Json, nullable=False),
        Column("revision", Integer, nullable=False, default=0),
        Column("created_at_us", BigInteger, nullable=False),
        Column("updated_at_us", BigInteger, nullable=False),
    )


networks = Table(
    "networks",
    metadata,
    *_standard(),
    Column("admin_state_up", Boolean, nullable=False, default=True),
    Column("shared", Boolean, nullable=False, default=False),
    Column("external", Boolean, nullable=False, default=False),
    Column("is_default", Boolean, nullable=False, default=False),  # of the external ones
    Column("port_security", Boolean, nullable=False, default=True),
    Column("vni", Integer, unique=True),  # of a VXLAN network
    Column("physical_network", String(64), unique=True),  # of a flat one: each carries one
    Column("mtu_bytes", Integer, nullable=False),
    Index("ix_networks_project", "project_id", "created_at_us"),
)
subnets = Table(
    "subnets",
    metadata,
    *_standard(),
    Column("network_id", ID, nullable=False, index=True),
    Column("ip_version", Integer, nullable=False),
    Column("cidr", String(43), nullable=False),
    Column("pools", Json, nullable=False),  # [first, last], in order
    Column("gateway", ADDRESS),
    Column("dns", Json, nullable=False),
    Column("routes", Json, nullable=False),  # [destination, next hop]
    Column("enable_dhcp", Boolean, nullable=False, default=True),
    Column("ipv6_address_mode", String(16)),
    Column("ipv6_ra_mode", String(16)),
    Column("pool_id", ID, index=True),  # of which its range is
    Index("ix_subnets_project", "project_id", "created_at_us"),
)
subnet_pools = Table(
    "subnet_pools",
    metadata,
    *_standard(),
    Column("ip_version", Integer, nullable=False),
    Column("prefixes", Json, nullable=False),
    Column("default_prefixlen", Integer, nullable=False),
    Column("min_prefixlen", Integer, nullable=False),
    Column("max_prefixlen", Integer, nullable=False),
    Column("default_quota", BigInteger),  # of a project; nothing: no limit
    Column("shared", Boolean, nullable=False, default=False),
    Column("is_default", Boolean, nullable=False, default=False),  # of its IP version
    Index("ix_subnet_pools_project", "project_id", "created_at_us"),
)
ports = Table(
    "ports",
    metadata,
    *_standard(),
    Column("network_id", ID, nullable=False),
    Column("mac", String(17), nullable=False),
    Column("admin_state_up", Boolean, nullable=False, default=True),
    Column("status", String(16), nullable=False),  # DOWN BUILD ACTIVE
    Column("device_id", String(255), nullable=False, default=""),
    Column("device_owner", String(255), nullable=False, default=""),
    Column("host", String(255), nullable=False, default=""),  # where it is bound
    Column("moving_to", String(255), nullable=False, default=""),  # where it is bound too, while its guest moves
    Column("profile", Json, nullable=False),
    Column("vnic_type", String(32), nullable=False, default="normal"),
    Column("port_security", Boolean, nullable=False, default=True),
    Column("pairs", Json, nullable=False),  # [CIDR or address, MAC]: what it may send from beside its own
    UniqueConstraint("network_id", "mac"),
    Index("ix_ports_project", "project_id", "created_at_us"),
    Index("ix_ports_device", "device_id"),
    Index("ix_ports_host", "host"),
    Index("ix_ports_created", "created_at_us", "id"),
    Index("ix_ports_moving_to", "moving_to", sqlite_where=_IS_MOVING, postgresql_where=_IS_MOVING),
)
port_addresses = Table(  # no address twice in a subnet
    "port_addresses",
    metadata,
    Column("subnet_id", ID, primary_key=True),
    Column("number", String(32), primary_key=True),  # the address in hexadecimal: its order is that of the numbers
    Column("port_id", ID, nullable=False, index=True),
    Column("place", Integer, nullable=False),  # among those of its port
    Column("address", ADDRESS, nullable=False, index=True),
)
port_groups = Table(
    "port_groups",
    metadata,
    Column("port_id", ID, primary_key=True),
    Column("group_id", ID, primary_key=True),
    Index("ix_port_groups_group", "group_id"),
)
security_groups = Table(
    "security_groups",
    metadata,
    *_standard(),
    Index("ix_security_groups_project", "project_id", "created_at_us"),
    Index(  # a project has one default group
        "uq_security_groups_default",
        "project_id",
        unique=True,
        sqlite_where=text("name = 'default'"),
        postgresql_where=text("name = 'default'"),
    ),
)
security_group_rules = Table(
    "security_group_rules",
    metadata,
    Column("id", ID, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("group_id", ID, nullable=False),
    Column("direction", String(8), nullable=False),  # ingress egress
    Column("ethertype", String(4), nullable=False),  # IPv4 IPv6
    Column("protocol", String(16)),  # as it was given
    Column("port_min", Integer),
    Column("port_max", Integer),
    Column("remote_cidr", String(43)),
    Column("remote_group_id", ID, index=True),
    Column("description", String(255), nullable=False, default=""),
    Column("meaning", String(160), nullable=False),  # what it lets through, in one spelling
    Column("revision", Integer, nullable=False, default=0),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    UniqueConstraint("group_id", "meaning"),
    Index("ix_security_group_rules_project", "project_id", "created_at_us"),
)
routers = Table(  # its ports are those whose device it is
    "routers",
    metadata,
    *_standard(),
    Column("admin_state_up", Boolean, nullable=False, default=True),
    Column("external_network_id", ID, index=True),  # of its gateway
    Column("gateway_port_id", ID),
    Column("enable_snat", Boolean, nullable=False, default=True),
    Column("routes", Json, nullable=False),  # [destination, next hop]
    Column("host", String(255), nullable=False, default=""),  # its place
    Index("ix_routers_project", "project_id", "created_at_us"),
    Index("ix_routers_host", "host"),
)
floating_ips = Table(
    "floating_ips",
    metadata,
    *(column for column in _standard() if column.name != "name"),
    Column("floating_network_id", ID, nullable=False, index=True),
    Column("floating_port_id", ID, nullable=False),  # which holds its address
    Column("address", ADDRESS, nullable=False),
    Column("port_id", ID),  # to which it leads
    Column("fixed_address", ADDRESS),
    Column("router_id", ID, index=True),
    Column("status", String(16), nullable=False),  # ACTIVE DOWN
    UniqueConstraint("port_id", "fixed_address"),
    Index("ix_floating_ips_project", "project_id", "created_at_us"),
)
network_quotas = Table(  # what differs from the defaults of the configuration
    "network_quotas",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("hard_limit", Integer, nullable=False),  # -1: no limit
    Column("set_at_us", BigInteger, nullable=False),
)
rbac_policies = Table(  # which projects may use a network beside its own (store/network/rbac.py)
    "rbac_policies",
    metadata,
    Column("id", ID, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("object_id", ID, nullable=False),
    Column("action", String(32), nullable=False),  # access_as_shared access_as_external
    Column("target", String(64), nullable=False),  # a project, or * for all
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("object_id", "action", "target"),
    Index("ix_rbac_policies_target", "target"),
)
auto_topologies = Table(  # what was made for a project that named no network (store/network/topologies.py)
    "auto_topologies",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("network_id", ID, nullable=False),
    Column("router_id", ID),
)
network_changes = Table(  # the newest, of what plans of hosts are made of (store/network/changes.py)
    "network_changes",
    metadata,
    Column("number", LONG_ID, primary_key=True),
    Column("kind", String(32), nullable=False),  # the table; empty: any
    Column("of", String(255), nullable=False),  # the row's id
)
host_networks = Table(  # what is in force on each host, as its network agent answered (store/network/in_force.py)
    "host_networks",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("tunnel_address", String(45), nullable=False),
    Column("physical_networks", Json, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("failed", Json, nullable=False),
    Column("applied_at_us", BigInteger, nullable=False),
)
