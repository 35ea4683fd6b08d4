"""One [[host]] of a configuration file, and what is wrong with it."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

import msgspec

from droveway.config import backends
from droveway.config.backends import BackendConfig
from droveway.config.drivers import HYPERVISORS, NETWORKS, HypervisorDriver, known
from droveway.domain import peer_uri, service_kinds
from droveway.domain.service_kinds import COMPUTE, NETWORK

_BACKEND_PATH = re.compile(r"[A-Za-z0-9._-]{1,64}:/.*")
_POOL = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PHYSICAL_NETWORK = re.compile(r"[A-Za-z0-9._-]{1,64}:[^/:\s]{1,15}")


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host whose services this machine's supervisor keeps running."""

    name: str  # of the host, in every list
    hypervisor: str = ""  # libvirt | simulated; empty where no nova-compute is carried
    enter: tuple[str, ...] = ()  # what the agent's command line is prefixed with, to run inside the host
    libvirt_uri: str = "qemu:///system"  # where the agent finds its libvirt
    peer_uri: str = ""  # where other hosts reach its libvirt: qemu+tls://ADDRESS/system
    data_uri: str = ""  # where a guest's memory and disks are sent to: tcp://ADDRESS, or tls://ADDRESS by TLS
    instances_path: str = ""  # where the disks of its guests lie
    host_state_path: str = ""  # what the agent keeps: fences and generations
    boot_id_path: str = "/proc/sys/kernel/random/boot_id"  # what changes when the host is started anew
    reserved_host_memory_mb: int = 0  # what a libvirt host keeps back for itself, and says so in its reports
    reserved_host_disk_gb: int = 0  # likewise of its disk
    tls_path: str = ""  # where its certificate lies (pki/host_files.py); empty: it has none
    renew_url: str = ""  # the agents' listener of an API, where it is renewed
    libvirt_pki: str = ""  # where the same is laid out for libvirtd, such as /etc/pki; empty: nowhere
    renewed_command: tuple[str, ...] = ()  # run after any of it has changed
    network: str = ""  # bridge | simulated; empty where no neutron-linuxbridge-agent is carried
    tunnel_address: str = ""  # of VXLAN, an IP address of this host; empty: it has no part in such networks
    physical_networks: tuple[str, ...] = ()  # each NAME:DEVICE, a device or a bridge without an address of the host
    backend_paths: tuple[str, ...] = ()  # each BACKEND:DIRECTORY, where the volumes of a backend are its files
    ceph_conf: str = ""  # of the Ceph cluster in which its guests open volumes; empty: in none
    ceph_user: str = ""  # as whom, without "client."; its own and no other host's
    ceph_keyring: str = ""  # where the key of that user is
    images_type: str = ""  # rbd: root disks lie in a pool of Ceph; empty: on the instance store, as files
    images_rbd_pool: str = ""  # that pool, of the cluster of ceph_conf
    backend: tuple[BackendConfig, ...] = ()
    disk_tls_path: str = ""  # what it opens served volumes with, nbd_tls_x509_cert_dir of its qemu.conf; empty: none
    simulated_copy_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0  # how long a simulated host sends a guest
    services: tuple[str, ...] = (COMPUTE,)  # what it carries, each a process of its own (docs/services.md)

    @property
    def driver(self) -> HypervisorDriver | None:
        """None where no nova-compute is carried, or its name is none (problems says so)."""
        return HYPERVISORS.get(self.hypervisor)

    def backend_named(self, name: str) -> BackendConfig:
        """It is there: problems() saw to it."""
        return next(one for one in self.backend if one.name == name)

    @property
    def shares_a_process(self) -> bool:
        """One agent and one heart are those of all such hosts of a file."""
        return self.driver is not None and self.driver.hosts_share_a_process

    @property
    def guests_end_with_agent(self) -> bool:
        return self.driver is not None and self.driver.guests_end_with_agent


def problems(host: HostConfig) -> list[str]:
    """Every sentence that is wrong with it beyond its types."""
    found = service_kinds.problems(host.services)
    needs_none = COMPUTE not in host.services and not host.hypervisor
    if host.driver is None and not needs_none:
        found.append(f"hypervisor = {host.hypervisor!r} must be {known(HYPERVISORS)}")
    if needs_none and not host.host_state_path:
        found.append("host_state_path is missing; a host without a hypervisor needs it")
    if host.driver is not None:
        needs = host.driver.needs
        found += [f"{key} is missing; a {host.hypervisor} host needs it" for key in needs if not getattr(host, key)]
        found += _wrong_uris(host) if host.driver.has_endpoints else []
    found += _wrong_network(host)
    found += backends.problems(host.backend, host.services)
    found += _wrong_volumes(host)
    return [f"host {host.name}: {reason}" for reason in found]


def _wrong_volumes(host: HostConfig) -> list[str]:
    found = [
        f"backend_paths: {one!r} must be BACKEND:DIRECTORY, such as fast:/srv/volumes"
        for one in host.backend_paths
        if not _BACKEND_PATH.fullmatch(one)
    ]
    keys = ("ceph_conf", "ceph_user", "ceph_keyring")
    if any(getattr(host, key) for key in keys):
        found += [
            f"{key} is missing; with one of {', '.join(keys)} go the others" for key in keys if not getattr(host, key)
        ]
    return found + _wrong_images(host)


def _wrong_images(host: HostConfig) -> list[str]:
    """Where root disks lie."""
    if host.images_type not in ("", "rbd"):
        return [f"images_type = {host.images_type!r} must be 'rbd', or left out for files on the instance store"]
    if not host.images_type:
        return ["images_rbd_pool is for images_type = 'rbd'"] if host.images_rbd_pool else []
    needs = ("images_rbd_pool", *(("ceph_conf",) if host.hypervisor == "libvirt" else ()))
    found = [f"{key} is missing; images_type = 'rbd' needs it" for key in needs if not getattr(host, key)]
    if host.images_rbd_pool and not _POOL.fullmatch(host.images_rbd_pool):
        found.append(f"images_rbd_pool = {host.images_rbd_pool!r} must be the name of a pool: letters, digits, . _ -")
    return found


def _wrong_network(host: HostConfig) -> list[str]:
    found = []
    if (NETWORK in host.services or host.network) and host.network not in NETWORKS:
        found.append(f"network = {host.network!r} must be {known(NETWORKS)}; {NETWORK} needs it")
    if host.tunnel_address:
        try:
            ipaddress.ip_address(host.tunnel_address)
        except ValueError:
            found.append(f"tunnel_address = {host.tunnel_address!r} must be an IP address of this host")
    names = [one.partition(":")[0] for one in host.physical_networks]
    found += [
        f"physical_networks: {one!r} must be NAME:DEVICE, such as physnet1:eth1"
        for one in host.physical_networks
        if not _PHYSICAL_NETWORK.fullmatch(one)
    ]
    return found + [
        f"physical_networks: {name} stands there {names.count(name)} times; each has one device"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _wrong_uris(host: HostConfig) -> list[str]:
    """What other hosts are told must be what they take."""
    found = []
    for read, uri in ((peer_uri.peer_uri, host.peer_uri), (peer_uri.data_uri, host.data_uri)):
        try:
            if uri and read(uri).transport == "sim":
                found.append(f"{uri} is that of a simulated host")
        except peer_uri.WrongUri as wrong:
            found.append(str(wrong))
    return found
