"""The rows of networks, as store/rows.py has those of the others."""

from __future__ import annotations

from typing import TypedDict

from droveway.store.rows import Object


class StandardRow(TypedDict):
    """What every resource of the Networking API has: a part of its row."""

    id: str
    project_id: str
    tags: list[str]
    revision: int
    created_at_us: int
    updated_at_us: int


class NetworkRow(StandardRow):
    name: str
    description: str
    admin_state_up: bool
    shared: bool
    external: bool
    is_default: bool
    port_security: bool
    vni: int | None
    physical_network: str | None
    mtu_bytes: int


class Network(NetworkRow):
    """With the ids of its subnets."""

    subnets: list[str]


class SubnetRow(StandardRow):
    name: str
    description: str
    network_id: str
    ip_version: int
    cidr: str
    pools: list[list[str]]
    gateway: str | None
    dns: list[str]
    routes: list[list[str]]
    enable_dhcp: bool
    ipv6_address_mode: str | None
    ipv6_ra_mode: str | None
    pool_id: str | None


class SubnetPoolRow(StandardRow):
    name: str
    description: str
    ip_version: int
    prefixes: list[str]
    default_prefixlen: int
    min_prefixlen: int
    max_prefixlen: int
    default_quota: int | None
    shared: bool
    is_default: bool


class PortRow(StandardRow):
    name: str
    description: str
    network_id: str
    mac: str
    admin_state_up: bool
    status: str
    device_id: str
    device_owner: str
    host: str
    moving_to: str
    profile: Object
    vnic_type: str
    port_security: bool
    pairs: list[list[str]]


class Port(PortRow):
    """With its addresses, each as (subnet, address), and the ids of its groups."""

    addresses: list[tuple[str, str]]
    groups: list[str]


class AddressRow(TypedDict):
    subnet_id: str
    number: str
    port_id: str
    place: int
    address: str


class GroupRow(StandardRow):
    name: str
    description: str


class RuleRow(TypedDict):
    id: str
    project_id: str
    group_id: str
    direction: str
    ethertype: str
    protocol: str | None
    port_min: int | None
    port_max: int | None
    remote_cidr: str | None
    remote_group_id: str | None
    description: str
    meaning: str
    revision: int
    created_at_us: int
    updated_at_us: int


class Group(GroupRow):
    """With its rules."""

    rules: list[RuleRow]


class RouterRow(StandardRow):
    name: str
    description: str
    admin_state_up: bool
    external_network_id: str | None
    gateway_port_id: str | None
    enable_snat: bool
    routes: list[list[str]]
    host: str


class Router(RouterRow):
    """With the addresses of its gateway, each as (subnet, address)."""

    gateway_addresses: list[tuple[str, str]]


class FloatingIpRow(TypedDict):
    id: str
    project_id: str
    description: str
    tags: list[str]
    revision: int
    created_at_us: int
    updated_at_us: int
    floating_network_id: str
    floating_port_id: str
    address: str
    port_id: str | None
    fixed_address: str | None
    router_id: str | None
    status: str
