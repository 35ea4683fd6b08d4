"""What `./dev up` makes in a new cloud so that its first server can be reached: a network outside and one inside with a
router between them, rules for ssh and ping, and a key. Each is looked for first: what is there stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from lab.client import Client

NETWORK = "/network/v2.0"
KEYPAIRS = "/compute/v2.1/os-keypairs"
OUTSIDE, INSIDE, ROUTER, KEY = "public", "private", "router", "droveway"
PHYSICAL = "physnet1"
OUTSIDE_CIDR, OUTSIDE_POOL = "172.24.4.0/24", {"start": "172.24.4.10", "end": "172.24.4.254"}
INSIDE_CIDR = "10.0.0.0/24"
CREATE = f"./dev openstack server create --flavor tiny --image tiny --network {INSIDE} --key-name {KEY} --wait g1"
WELCOME: tuple[dict[str, Any], ...] = (
    {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22},
    {"protocol": "icmp"},
)


def key_path(home: Path) -> Path:
    """Where the private half is: whoever reads it is root on the servers made with it."""
    return home / "id_ed25519"


def public_line(home: Path) -> str:
    """The other half, as a keypair has it; the key is made when there is none, or it cannot be read."""
    path = key_path(home)
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, TypeError, ValueError):
        key = Ed25519PrivateKey.generate()
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(0o600)
        unfinished.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        unfinished.rename(path)
    return f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} droveway"


class Quickstart:
    """Of the admin's project. Raises ApiFailed."""

    def __init__(self, client: Client, home: Path) -> None:
        self._client, self._home = client, home

    def make(self) -> None:
        self._keypair()
        self._rules()
        outside = self._external()
        inside = self._network(INSIDE, {})
        self._subnet(outside, {"cidr": OUTSIDE_CIDR, "allocation_pools": [OUTSIDE_POOL], "enable_dhcp": False})
        subnet = self._subnet(inside, {"cidr": INSIDE_CIDR})
        self._router(outside, inside, subnet)

    def _keypair(self) -> None:
        """Another one of the name goes: it would be good for nobody. Servers keep the key that they were made with."""
        line = public_line(self._home)
        found = [one["keypair"] for one in self._client.must("GET", KEYPAIRS)["keypairs"]]
        there = next((one for one in found if one["name"] == KEY), None)
        if there is not None and there["public_key"].split()[:2] == line.split()[:2]:
            return
        if there is not None:
            self._client.must("DELETE", f"{KEYPAIRS}/{KEY}")
        self._client.must("POST", KEYPAIRS, {"keypair": {"name": KEY, "public_key": line}})

    def _rules(self) -> None:
        """In the default group, which is that of a server for which none is named."""
        (group,) = self._list("security-groups", name="default", project_id=self._client.project_id)
        there = group["security_group_rules"]
        for wanted in WELCOME:
            rule = {"direction": "ingress", "ethertype": "IPv4", **wanted}
            if not any(all(one[key] == value for key, value in rule.items()) for one in there):
                body = {"security_group_rule": {"security_group_id": group["id"], **rule}}
                self._client.must("POST", f"{NETWORK}/security-group-rules", body)

    def _external(self) -> str:
        """There is one physical network, and so one that is outside, whatever it is called by now."""
        found = self._list("networks", **{"router:external": "true"})
        if found:
            return str(found[0]["id"])
        flat = {"provider:network_type": "flat", "provider:physical_network": PHYSICAL, "router:external": True}
        return self._network(OUTSIDE, flat)

    def _network(self, name: str, more: dict[str, Any]) -> str:
        return self._one("network", {"name": name, **more})["id"]

    def _subnet(self, network: str, more: dict[str, Any]) -> str:
        found = self._list("subnets", network_id=network, ip_version="4")
        new = {"network_id": network, "ip_version": 4, **more}
        return str(found[0]["id"] if found else self._create("subnet", new)["id"])

    def _router(self, outside: str, inside: str, subnet: str) -> None:
        gateway = {"external_gateway_info": {"network_id": outside}}
        router = self._one("router", {"name": ROUTER, **gateway})
        if router["external_gateway_info"] is None:
            self._client.must("PUT", f"{NETWORK}/routers/{router['id']}", {"router": gateway})
        if not self._list("ports", network_id=inside, device_owner="network:router_interface"):
            self._client.must("PUT", f"{NETWORK}/routers/{router['id']}/add_router_interface", {"subnet_id": subnet})

    def _one(self, kind: str, new: dict[str, Any]) -> dict[str, Any]:
        found = self._list(f"{kind}s", name=new["name"], project_id=self._client.project_id)
        return found[0] if found else self._create(kind, new)

    def _create(self, kind: str, new: dict[str, Any]) -> dict[str, Any]:
        return dict(self._client.must("POST", f"{NETWORK}/{kind}s", {kind: new})[kind])

    def _list(self, kinds: str, **filters: str) -> list[dict[str, Any]]:
        asked = "&".join(f"{key}={value}" for key, value in filters.items())
        return list(self._client.must("GET", f"{NETWORK}/{kinds}?{asked}")[kinds.replace("-", "_")])
