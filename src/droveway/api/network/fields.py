"""What is shown of each resource of the Networking API. What an extension adds is there because the extension is in the
list of api/network/extensions.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from droveway.api.http.render import Field, FieldTable, constant, seconds
from droveway.store.network.rbac import Policy
from droveway.store.network.rows import FloatingIpRow, Group, Network, Port, Router, RuleRow, SubnetPoolRow, SubnetRow

ZONE = "nova"


def _standard(*, with_tags: bool = True) -> tuple[Field[Any], ...]:
    return (
        Field("id", "id"),
        Field("project_id", "project_id"),
        Field("tenant_id", "project_id"),
        Field("description", "description"),
        *((Field("tags", "tags"),) if with_tags else ()),
        Field("revision_number", "revision"),
        Field("created_at", lambda row, _: seconds(row["created_at_us"])),
        Field("updated_at", lambda row, _: seconds(row["updated_at_us"])),
    )


def _pairs(column: str, first: str, second: str) -> Callable[[Any, Any], list[dict[str, str]]]:
    return lambda row, _: [{first: one, second: other} for one, other in row[column]]


NETWORK = FieldTable(
    Network,
    *_standard(),
    Field("name", "name"),
    Field("admin_state_up", "admin_state_up"),
    Field("shared", "shared"),
    Field("router:external", "external"),
    Field("is_default", "is_default"),
    Field("port_security_enabled", "port_security"),
    Field("mtu", "mtu_bytes"),
    Field("subnets", "subnets"),
    constant("status", "ACTIVE"),
    constant("availability_zone_hints", []),
    Field("availability_zones", lambda row, _: [ZONE] if row["subnets"] else []),
    Field("provider:network_type", lambda row, _: "vxlan" if row["vni"] else "flat", admin_only=True),
    Field("provider:physical_network", "physical_network", admin_only=True),
    Field("provider:segmentation_id", "vni", admin_only=True),
)
SUBNET = FieldTable(
    SubnetRow,
    *_standard(),
    Field("name", "name"),
    Field("network_id", "network_id"),
    Field("ip_version", "ip_version"),
    Field("cidr", "cidr"),
    Field("gateway_ip", "gateway"),
    Field("enable_dhcp", "enable_dhcp"),
    Field("dns_nameservers", "dns"),
    Field("ipv6_address_mode", "ipv6_address_mode"),
    Field("ipv6_ra_mode", "ipv6_ra_mode"),
    Field("allocation_pools", _pairs("pools", "start", "end")),
    Field("host_routes", _pairs("routes", "destination", "nexthop")),
    Field("subnetpool_id", "pool_id"),
)


SUBNET_POOL = FieldTable(
    SubnetPoolRow,
    *_standard(),
    Field("name", "name"),
    Field("ip_version", "ip_version"),
    Field("prefixes", "prefixes"),
    Field("default_prefixlen", lambda row, _: str(row["default_prefixlen"])),
    Field("min_prefixlen", lambda row, _: str(row["min_prefixlen"])),
    Field("max_prefixlen", lambda row, _: str(row["max_prefixlen"])),
    Field("default_quota", "default_quota"),
    Field("shared", "shared"),
    Field("is_default", "is_default"),
)


def _address_pairs(row: Port, _: Any) -> list[dict[str, str]]:
    return [{"ip_address": cidr, "mac_address": mac or row["mac"]} for cidr, mac in row["pairs"]]


PORT = FieldTable(
    Port,
    *_standard(),
    Field("name", "name"),
    Field("network_id", "network_id"),
    Field("mac_address", "mac"),
    Field("admin_state_up", "admin_state_up"),
    Field("status", "status"),
    Field("device_id", "device_id"),
    Field("device_owner", "device_owner"),
    Field("security_groups", "groups"),
    Field("port_security_enabled", "port_security"),
    Field("binding:vnic_type", "vnic_type"),
    Field("fixed_ips", _pairs("addresses", "subnet_id", "ip_address")),
    Field("allowed_address_pairs", _address_pairs),
    Field("binding:host_id", "host", admin_only=True),
    Field("binding:profile", "profile", admin_only=True),
    Field("binding:vif_type", lambda row, _: "bridge" if row["host"] else "unbound", admin_only=True),
    constant("binding:vif_details", {}, admin_only=True),
)
RULE = FieldTable(
    RuleRow,
    *_standard(with_tags=False),
    Field("security_group_id", "group_id"),
    Field("direction", "direction"),
    Field("ethertype", "ethertype"),
    Field("protocol", "protocol"),
    Field("port_range_min", "port_min"),
    Field("port_range_max", "port_max"),
    Field("remote_ip_prefix", "remote_cidr"),
    Field("remote_group_id", "remote_group_id"),
)
_rule = RULE.renderer(1, is_admin=False)
GROUP = FieldTable(
    Group,
    *_standard(),
    Field("name", "name"),
    Field("security_group_rules", lambda row, _: [_rule(rule, None) for rule in row["rules"]]),
)


def _gateway(row: Router, _: Any) -> dict[str, Any] | None:
    if row["external_network_id"] is None:
        return None
    fixed = [{"subnet_id": subnet, "ip_address": address} for subnet, address in row["gateway_addresses"]]
    return {
        "network_id": row["external_network_id"],
        "enable_snat": row["enable_snat"],
        "external_fixed_ips": fixed,
    }


ROUTER = FieldTable(
    Router,
    *_standard(),
    Field("name", "name"),
    Field("admin_state_up", "admin_state_up"),
    constant("status", "ACTIVE"),
    Field("external_gateway_info", _gateway),
    Field("routes", _pairs("routes", "destination", "nexthop")),
    constant("availability_zone_hints", []),
    Field("availability_zones", lambda row, _: [ZONE] if row["host"] else []),
)
RBAC_POLICY = FieldTable(
    Policy,
    Field("id", "id"),
    Field("project_id", "project_id"),
    Field("tenant_id", "project_id"),
    constant("object_type", "network"),
    Field("object_id", "object_id"),
    Field("action", "action"),
    Field("target_tenant", "target"),
)
FLOATING_IP = FieldTable(
    FloatingIpRow,
    *_standard(),
    Field("floating_network_id", "floating_network_id"),
    Field("floating_ip_address", "address"),
    Field("port_id", "port_id"),
    Field("fixed_ip_address", "fixed_address"),
    Field("router_id", "router_id"),
    Field("status", "status"),
)
