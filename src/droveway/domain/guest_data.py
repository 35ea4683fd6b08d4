"""What a guest is told of itself, in the documents of OpenStack and of EC2: on its config drive, and by the metadata
service. A pure function of what the rows say, so that the same guest gets the same bytes on every host.

Sources: OpenStack's user guide (Metadata), nova/api/metadata/base.py, network_data.json's schema, AWS's instance
metadata categories.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from droveway.domain.faults import BadRequest
from droveway.domain.network_plan import (
    HostNetworks,
    Ipv6Mode,
    PlannedNetwork,
    PlannedPort,
    PlannedSubnet,
    device_of,
)
from droveway.domain.wire import FEW, ShortText

USER_DATA_MAX = 65_535  # characters of base64: OpenStack's bound
DOCUMENT_MAX_BYTES = 262_144  # 128 items of metadata and a key are a third of it
OPENSTACK, EC2 = "openstack/latest/", "ec2/latest/"


class GuestKey(msgspec.Struct, frozen=True):
    name: str
    type: str  # ssh | x509
    public_key: str


class GuestNic(msgspec.Struct, frozen=True):
    """A port of the guest and the network that it is in."""

    port: PlannedPort
    network: PlannedNetwork
    tag: str = ""


class GuestFacts(msgspec.Struct, frozen=True):
    """Of the rows of a server, what its guest may know."""

    instance_id: str
    number: int
    name: str
    hostname: str
    project_id: str
    zone: str
    flavor_name: str
    reservation_id: str
    launch_index: int = 0
    metadata: dict[str, str] = {}
    key: GuestKey | None = None
    user_data: bytes | None = None
    nics: tuple[GuestNic, ...] = ()
    group_names: tuple[str, ...] = ()
    password: str = ""  # that the guest itself has set, for its users to read
    admin_password: str | None = None  # for the config drive: hosts that serve metadata are not told it


class Document(msgspec.Struct, frozen=True):
    """One text, and the paths under which a guest finds it: user data lies under two."""

    paths: Annotated[tuple[ShortText, ...], FEW]
    data: Annotated[bytes, msgspec.Meta(max_length=DOCUMENT_MAX_BYTES)]

    def __repr__(self) -> str:
        return f"Document({', '.join(self.paths)}: {len(self.data)} bytes)"  # user data may hold secrets: no log has it


Documents = Annotated[tuple[Document, ...], FEW]


def digest(
    number: int,
    name: str,
    hostname: str,
    metadata: Mapping[str, str],
    key_name: str | None,
    password: str | None = None,
) -> str:
    """Of what a row says that its guest is told and that may change. User data, the key itself and the flavor are those
    of its beginning. A host that has another one is told anew."""
    columns = [number, name, hostname, metadata, key_name, *(() if password is None else (password,))]
    content = msgspec.json.encode(columns, order="sorted")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class GuestData(msgspec.Struct, frozen=True):
    """What the host of a guest is told, once: its facts but for interfaces and groups, which are in the host's plan."""

    digest: ShortText
    facts: GuestFacts

    def __repr__(self) -> str:
        return f"GuestData({self.facts.instance_id}, {self.digest})"  # user data may hold secrets: no log has it


def decoded(text: str) -> bytes:
    """User data as the guest gets it. Raises BadRequest."""
    if len(text) > USER_DATA_MAX:
        raise BadRequest(
            f"Invalid input for server.user_data: it is {len(text)} characters of base64 long; {USER_DATA_MAX} are "
            "accepted. Let it fetch the rest."
        )
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("Invalid input for server.user_data: it must be base64.") from None


def documents(facts: GuestFacts) -> tuple[Document, ...]:
    found = [
        Document((OPENSTACK + "meta_data.json",), _json(_openstack(facts))),
        Document((OPENSTACK + "network_data.json",), _json(network_data(facts.nics))),
        Document((OPENSTACK + "vendor_data.json",), b"{}"),
        Document((EC2 + "meta-data.json",), _json(ec2(facts))),
    ]
    if facts.user_data is not None:
        found.append(Document((OPENSTACK + "user_data", EC2 + "user-data"), facts.user_data))
    return tuple(found)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def at_host(guests: Mapping[str, GuestData], plan: HostNetworks) -> dict[str, GuestFacts]:
    """All facts of those guests that the host's plan has, their interfaces and groups among them. What the plan says of
    other hosts is no concern of theirs, and left out."""
    networks = {
        network.id: msgspec.structs.replace(network, remote_ports=(), tunnel_addresses=()) for network in plan.networks
    }
    names = {group.id: group.name for group in plan.groups}
    mine: dict[str, list[PlannedPort]] = {}
    for port in sorted(plan.ports, key=lambda one: (one.place, one.id)):
        if port.data_digest and port.instance_id in guests and port.network_id in networks:
            mine.setdefault(port.instance_id, []).append(port)
    return {
        instance_id: msgspec.structs.replace(
            guests[instance_id].facts,
            nics=tuple(GuestNic(port, networks[port.network_id], port.tag) for port in its),
            group_names=tuple(sorted({names.get(group, "") for port in its for group in port.groups} - {""})),
        )
        for instance_id, its in mine.items()
    }


def served(facts: GuestFacts) -> dict[str, bytes]:
    """What the metadata service shows of a guest, by path (domain/metadata_paths.py)."""
    found = {f"{OPENSTACK}password": facts.password.encode(), f"{OPENSTACK}vendor_data2.json": b"{}"}
    for document in documents(facts):
        found |= {path: document.data for path in document.paths if path.startswith(OPENSTACK)}
    tree = ec2(facts)
    for number, key in tree.get("public-keys", {}).items():
        found["latest/meta-data/public-keys"] = key.pop("_name").encode()
        found[f"latest/meta-data/public-keys/{number}/openssh-key"] = key["openssh-key"].encode()
    found |= dict(_leaves("latest/meta-data", {name: tree[name] for name in tree if name != "public-keys"}))
    if facts.user_data is not None:
        found["latest/user-data"] = facts.user_data
    return found


def _leaves(path: str, value: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(f"{path}/{name}", below)
    else:
        yield path, ("\n".join(value) if isinstance(value, list) else str(value)).encode()


# -- OpenStack's ------------------------------------------------------------------------------------------------------
def _openstack(facts: GuestFacts) -> dict[str, Any]:
    found: dict[str, Any] = {
        "uuid": facts.instance_id,
        "name": facts.name,
        "hostname": facts.hostname,
        "project_id": facts.project_id,
        "availability_zone": facts.zone,
        "launch_index": facts.launch_index,
        "devices": [_device(nic) for nic in facts.nics if nic.tag],
        "dedicated_cpus": [],
    }
    if facts.metadata:
        found["meta"] = facts.metadata
    if facts.admin_password is not None:
        found["admin_pass"] = facts.admin_password
    if facts.key is not None:
        found["public_keys"] = {facts.key.name: facts.key.public_key}
        found["keys"] = [{"name": facts.key.name, "type": facts.key.type, "data": facts.key.public_key}]
    return found


def _device(nic: GuestNic) -> dict[str, Any]:
    """A device that its user gave a tag."""
    return {"type": "nic", "bus": "none", "address": "none", "mac": nic.port.mac, "tags": [nic.tag]}


def network_data(nics: tuple[GuestNic, ...]) -> dict[str, Any]:
    """Links, the networks on them, and who resolves names."""
    networks: list[dict[str, Any]] = []
    servers: list[str] = []
    for nic in nics:
        subnets = {subnet.id: subnet for subnet in nic.network.subnets}
        for fixed in nic.port.fixed_ips:
            subnet = subnets[fixed.subnet_id]
            servers += [server for server in subnet.dns if server not in servers]
            networks.append(
                {
                    "id": f"network{len(networks)}",
                    "link": device_of(nic.port.id),
                    "network_id": nic.network.id,
                    **_addressing(subnet, fixed.address),
                }
            )
    return {
        "links": [_link(nic) for nic in nics],
        "networks": networks,
        "services": [{"type": "dns", "address": server} for server in servers],
    }


def _link(nic: GuestNic) -> dict[str, Any]:
    return {
        "id": device_of(nic.port.id),
        "vif_id": nic.port.id,
        "type": "bridge",
        "mtu": nic.network.mtu_bytes,
        "ethernet_mac_address": nic.port.mac,
    }


_BY_MODE = {
    Ipv6Mode.SLAAC: "ipv6_slaac",
    Ipv6Mode.STATELESS: "ipv6_dhcpv6-stateless",
    Ipv6Mode.STATEFUL: "ipv6_dhcpv6-stateful",
}


def _addressing(subnet: PlannedSubnet, address: str) -> dict[str, Any]:
    """How the guest gets its address: it is told the address itself only where nobody hands it out."""
    cidr = ipaddress.ip_network(subnet.cidr)
    if cidr.version == 6 and subnet.ipv6_mode is not Ipv6Mode.NONE:
        return {"type": _BY_MODE[subnet.ipv6_mode]}
    if subnet.has_dhcp and cidr.version == 4:
        return {"type": "ipv4_dhcp"}
    return {
        "type": f"ipv{cidr.version}",
        "ip_address": address,
        "netmask": str(cidr.netmask),
        "routes": list(_routes(subnet, cidr.version)),
        "services": [{"type": "dns", "address": server} for server in subnet.dns],
    }


def _routes(subnet: PlannedSubnet, version: int) -> Iterator[dict[str, str]]:
    default = ("0.0.0.0/0" if version == 4 else "::/0", subnet.gateway)
    for cidr, gateway in (*((default,) if subnet.gateway else ()), *subnet.routes):
        network = ipaddress.ip_network(cidr)
        yield {"network": str(network.network_address), "netmask": str(network.netmask), "gateway": gateway}


# -- EC2's ------------------------------------------------------------------------------------------------------------
def ec2(facts: GuestFacts) -> dict[str, Any]:
    """Its meta-data as one object; the metadata service shows it as a tree of paths."""
    addresses = [fixed.address for nic in facts.nics for fixed in nic.port.fixed_ips if ":" not in fixed.address]
    found: dict[str, Any] = {
        "ami-launch-index": facts.launch_index,
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": facts.hostname,
        "instance-action": "none",
        "instance-id": f"i-{facts.number:08x}",
        "instance-type": facts.flavor_name,
        "local-hostname": facts.hostname,
        "local-ipv4": addresses[0] if addresses else "",
        "placement": {"availability-zone": facts.zone},
        "public-hostname": facts.hostname,
        "public-ipv4": "",
        "reservation-id": facts.reservation_id,
        "security-groups": list(facts.group_names),
    }
    if facts.key is not None:
        found["public-keys"] = {"0": {"_name": f"0={facts.key.name}", "openssh-key": facts.key.public_key}}
    return found
