"""The configuration files of a cloud on this machine, as an operator would write them for several."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backing import AGENTS, CONTROL
from lab.hosts import OUTER_DEVICE
from lab.quickstart import PHYSICAL

if TYPE_CHECKING:
    from lab.cloud import Cloud

SERVICES = ["nova-compute", "neutron-linuxbridge-agent"]
DISKS = "disks"  # the backend of volumes of each host
_BACKUP = ["cinder-backup"]  # one of the hosts keeps the store of backups
# Whoever tries a cloud out on one machine is stopped by the machine.
FREE = dict.fromkeys(("instances", "cores", "ram", "server_groups", "server_group_members"), -1)


def files(cloud: Cloud, port: int, simulated: bool) -> dict[Path, str]:
    """The configuration of each role; one file for all where they are not apart."""
    hosts = _simulated_hosts(cloud) if simulated else _real_hosts(cloud)
    api = {"listen": f"127.0.0.1:{port}", "clouds_yaml": str(cloud.clouds_yaml)}
    everywhere = {"state_path": str(cloud.home), **cloud.settings}
    reached = {} if simulated else {"agents": {"api_urls": [f"http://{cloud.lab.address}:{port}"]}}
    if cloud.choice.store == "postgresql":
        everywhere["database"] = cloud.backing.database_url
    network = {"driver": "simulated" if simulated else "bridge"}
    backups = cloud.home / "backups" if simulated else cloud.lab.shared / "backups"
    backups.mkdir(parents=True, exist_ok=True)
    backup = {"backup": {"path": str(backups)}}
    if not cloud.choice.is_apart:
        return {
            cloud.config: _file(everywhere, {"quota": FREE, "api": api, "network": network, **backup, **reached}, hosts)
        }
    bus, backing = cloud.choice.bus, cloud.backing
    everywhere["bus"] = bus
    own = {bus: backing.bus_settings(CONTROL)}
    address = "127.0.0.1" if simulated else cloud.lab.address
    theirs = {bus: backing.bus_settings(AGENTS, address)}
    told = theirs[bus]  # who joins may be inside of a lab host, or an imagined host on the machine itself
    told = {**told, "servers": list(dict.fromkeys([*told["servers"], *own[bus]["servers"]]))}
    url = f"http://127.0.0.1:{port}"
    consoles = {"console": {"on_this_machine": True}}
    files = {
        cloud.config: _file(
            {"role": "control", **everywhere},
            {
                "quota": FREE,
                **own,
                "api": {"listen": "", "url": url, **_without(api, "listen")},
                "network": network,
                **reached,
            },
        ),
        cloud.home / "api.toml": _file(
            {"role": "api", **everywhere},
            {
                "quota": FREE,
                **own,
                "network": network,
                "api": {**_without(api, "clouds_yaml"), "agents_listen": f"127.0.0.1:{cloud.agents_port()}"},
                f"agents.{bus}": told,
                **consoles,
            },
        ),
    }
    agent = {"role": "agent", **_without(everywhere, "database")}
    groups = {"simulated": hosts} if simulated else {str(host["name"]): [host] for host in hosts}
    for name, group in groups.items():
        files[cloud.home / f"agent-{name}.toml"] = _file(agent, {**theirs, **backup, **consoles}, group)
    return files


def _simulated_hosts(cloud: Cloud) -> list[dict[str, object]]:
    return [
        {
            "name": f"sim{number}",
            "hypervisor": "simulated",
            "network": "simulated",
            "tunnel_address": f"192.0.2.{number}",
            "physical_networks": [f"{PHYSICAL}:{OUTER_DEVICE}"],
            "services": [*SERVICES, f"cinder-volume@{DISKS}", *(_BACKUP if number == 1 else [])],
            "backend": [{"name": DISKS, "driver": "simulated"}],
            **cloud.of_simulated,
        }
        for number in range(1, 1 + cloud.simulated_hosts)
    ]


def _real_hosts(cloud: Cloud) -> list[dict[str, object]]:
    cloud.instances.mkdir(parents=True, exist_ok=True)
    guests = [
        {
            **(own := cloud.storage.of_host(host)),
            "name": host.name,
            "enter": host.command(*cloud.prefix),
            "hypervisor": "libvirt",
            "libvirt_uri": "qemu:///system",
            "peer_uri": host.peer_uri,
            "data_uri": host.data_uri,
            "instances_path": str(cloud.instances),
            "host_state_path": str(cloud.home / "hosts" / host.name),
            "boot_id_path": host.boot_id_path,
            "network": "bridge",
            "tunnel_address": host.address,
            "physical_networks": [f"{PHYSICAL}:{OUTER_DEVICE}"],
            "services": [*SERVICES, *own["services"]],
        }
        for host in cloud.lab.hosts
    ]
    return [*guests, *cloud.storage.own_hosts()]


def _file(
    top: Mapping[str, object], tables: Mapping[str, Mapping[str, object]], hosts: Sequence[Mapping[str, object]] = ()
) -> str:
    """A configuration file."""
    lines = ["# written by ./dev up at every start", *(f"{key} = {_toml(value)}" for key, value in top.items())]
    for title, rows in [
        *((f"[{name}]", table) for name, table in tables.items()),
        *(part for one in hosts for part in _host(one)),
    ]:
        lines += ["", title, *(f"{key} = {_toml(value)}" for key, value in rows.items())]
    return "\n".join(lines) + "\n"


def _host(host: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Its keys, and behind them the tables in it."""
    yield "[[host]]", _without(host, "backend")
    backends = host["backend"]
    assert isinstance(backends, list), "it has some"
    for backend in backends:
        yield "[[host.backend]]", backend


def _without(rows: Mapping[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in rows.items() if key not in keys}


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(value: Path | str) -> str:
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
