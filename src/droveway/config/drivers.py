"""Every driver by its name, a table a port: where it is made, what it needs, and what it declares.

A new driver is a folder or a file in drivers/ and a line here. `start` is MODULE:FUNCTION; it is imported only in a
process that has chosen the driver (process/load.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class HypervisorDriver(NamedTuple):
    """`start(config, hosts, images)` makes a MadeHypervisor (ports/hypervisor.py) for each of the hosts."""

    start: str
    needs: tuple[str, ...] = ()  # keys of a [[host]] that may not be empty
    has_endpoints: bool = True  # its peer_uri and data_uri are addresses that other hosts reach
    hosts_share_a_process: bool = False  # one agent and one heart for all hosts of a file
    guests_end_with_agent: bool = False  # each start of its agent counts as a boot of the host


HYPERVISORS = {
    "libvirt": HypervisorDriver(
        "droveway.drivers.hypervisor.libvirt.start:make",
        needs=("libvirt_uri", "peer_uri", "data_uri", "instances_path", "host_state_path", "boot_id_path"),
    ),
    "simulated": HypervisorDriver(
        "droveway.drivers.hypervisor.simulated.start:make",
        has_endpoints=False,
        hosts_share_a_process=True,
        guests_end_with_agent=True,
    ),
}


class BusDriver(NamedTuple):
    """`start(settings)` makes the connection to the broker from the table of that name; empty: there is no broker, and
    one control has the API in its own process."""

    start: str = ""

    @property
    def has_broker(self) -> bool:
        return bool(self.start)


BUSES = {
    "socket": BusDriver(),
    "nats": BusDriver("droveway.drivers.bus.nats_link:make"),
    "rabbitmq": BusDriver("droveway.drivers.bus.rabbitmq_link:make"),
}


class MembershipDriver(NamedTuple):
    """`start(settings, clock, store)` makes this process's end of it; empty: heartbeats over the bus are judged by the
    failure detector itself. The two times, in seconds, hold where the configuration names none."""

    report_interval_s: float
    service_down_time_s: float
    start: str = ""
    port: int = 0  # of its server, which the address names; 0: it has no server of its own
    has_one_server: bool = False


MEMBERSHIPS = {
    "bus": MembershipDriver(1.0, 3.0),
    # Where a heartbeat costs a database write or is read by polling, the times are those that operators know.
    "db": MembershipDriver(10.0, 60.0, "droveway.drivers.membership.db:make"),
    "zookeeper": MembershipDriver(1.0, 3.0, "droveway.drivers.membership.zookeeper:make", 2181),
    "memcached": MembershipDriver(10.0, 60.0, "droveway.drivers.membership.memcached:make", 11211, has_one_server=True),
    "etcd": MembershipDriver(1.0, 3.0, "droveway.drivers.membership.etcd:make", 2379),
}


class NetworkDriver(NamedTuple):
    """`start(host, directory)` makes the Network (ports/network.py) of one [[host]]; `directory` is emptied by a reboot
    of that host."""

    start: str
    has_guests: bool = True  # that reach the addresses of metadata


NETWORKS = {
    "bridge": NetworkDriver("droveway.drivers.network.bridge.start:make"),
    "simulated": NetworkDriver("droveway.drivers.network.simulated:make", has_guests=False),
}


class CredentialsDriver(NamedTuple):
    """`start(settings)` makes the Credentials (ports/credentials.py) of one domain from [identity.NAME]; empty: the
    program's own table, which has every domain that has no other."""

    start: str = ""


CREDENTIALS = {
    "table": CredentialsDriver(),
    "ldap": CredentialsDriver("droveway.drivers.credentials.ldap:make"),
}


class StorageDriver(NamedTuple):
    """`start(backend, host, directory, images)` makes the Storage (ports/storage.py) of one [[host.backend]];
    `directory` is where its service alone keeps what it must not lose."""

    start: str
    needs: tuple[str, ...] = ()  # keys of a [[host.backend]] that may not be empty


STORAGES = {
    "dir": StorageDriver("droveway.drivers.storage.dir.start:make", ("path",)),
    "rbd": StorageDriver("droveway.drivers.storage.rbd.start:make", ("pool", "ceph_conf", "ceph_user", "ceph_keyring")),
    "lvm": StorageDriver("droveway.drivers.storage.lvm.start:make", ("volume_group", "address")),
    "simulated": StorageDriver("droveway.drivers.storage.simulated_start:make"),
}


def known(table: Mapping[str, object]) -> str:
    """The names of that table, for a message."""
    *front, last = table
    return f"{', '.join(front)} or {last}"
