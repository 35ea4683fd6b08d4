"""Who is alive: the part of the configuration that chooses a membership driver, in the words operators know.

servicegroup_driver = "zk"              # bus (the default), db, zookeeper or zk, memcached or mc, etcd
[zookeeper]
address = "a:2181,b:2181,c:2181"
"""

from __future__ import annotations

import msgspec

from droveway.config.drivers import MEMBERSHIPS
from droveway.config.tls import wrong_files
from droveway.domain.faults import WrongConfiguration

ALIASES = {"zk": "zookeeper", "mc": "memcached"}


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a server is reached that does not let everybody in. Naming an authority demands TLS."""

    tls_ca: str = ""  # who may sign the server's certificate
    tls_cert: str = ""  # this end's own, where the server asks for one
    tls_key: str = ""  # its key
    user: str = ""  # at the server
    password: str = ""  # at the server


class Server(Access, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One that has a server, or several."""

    address: str = ""  # HOST:PORT, of several with commas between them

    @property
    def servers(self) -> str:
        return "".join(self.address.split())

    @property
    def credentials(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in Access.__struct_fields__}


class ZookeeperConfig(Server, frozen=True, forbid_unknown_fields=True):
    """`tick_time` is the servers' tickTime in seconds: they grant no session shorter than two ticks."""

    address: str = ""  # HOST:PORT, with commas between them
    sg_prefix: str = "/servicegroups"  # the node under which members stand
    sg_retry_interval: float = 5.0  # between two tries to connect
    session_timeout: float = 3.0  # after which a member is gone
    tick_time: float = 2.0  # that of the servers


class EtcdConfig(Server, frozen=True, forbid_unknown_fields=True):
    address: str = ""  # HOST:PORT, with commas between them
    prefix: str = "/servicegroups"  # of the keys of members
    lease: int = 3  # after which a member is gone


class MemcachedConfig(Server, frozen=True, forbid_unknown_fields=True):
    address: str = ""  # HOST:PORT


class MembershipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    servicegroup_driver: str = "bus"
    report_interval: float | None = None
    service_down_time: float | None = None
    initial_delay: float = 0.0
    zookeeper: ZookeeperConfig = ZookeeperConfig()
    etcd: EtcdConfig = EtcdConfig()
    memcached: MemcachedConfig = MemcachedConfig()

    @property
    def driver(self) -> str:
        """The driver's one name, whichever spelling was used. Raises WrongConfiguration."""
        name = ALIASES.get(self.servicegroup_driver, self.servicegroup_driver)
        if name not in MEMBERSHIPS:
            raise WrongConfiguration(_unknown(self.servicegroup_driver))
        return name

    @property
    def report_interval_s(self) -> float:
        return MEMBERSHIPS[self.driver].report_interval_s if self.report_interval is None else self.report_interval

    @property
    def service_down_time_s(self) -> float:
        return (
            MEMBERSHIPS[self.driver].service_down_time_s if self.service_down_time is None else self.service_down_time
        )


def problems(settings: MembershipSettings) -> list[str]:
    """Every sentence that is wrong with it beyond its types."""
    name = ALIASES.get(settings.servicegroup_driver, settings.servicegroup_driver)
    if name not in MEMBERSHIPS:
        return [_unknown(settings.servicegroup_driver)]
    problems = []
    interval_s, down_s = settings.report_interval_s, settings.service_down_time_s
    if interval_s <= 0:
        problems.append(
            f"report_interval = {interval_s} must be above 0 seconds, such as {MEMBERSHIPS[name].report_interval_s:g}"
        )
    if interval_s >= down_s:
        problems.append(
            f"report_interval = {interval_s} must be smaller than service_down_time = {down_s}, or every service "
            f"would show down; three beats fit with service_down_time = {interval_s * 3:g}"
        )
    if settings.initial_delay < 0:
        problems.append(f"initial_delay = {settings.initial_delay:g} must be 0 seconds or more")
    if MEMBERSHIPS[name].port:
        problems += _wrong_addresses(name, getattr(settings, name).address)
        problems += _wrong_access(name, getattr(settings, name))
    z = settings.zookeeper
    if not z.sg_prefix.startswith("/"):
        problems.append(f"zookeeper.sg_prefix = {z.sg_prefix!r} must begin with a slash, such as '/servicegroups'")
    problems += [
        f"{key} = {value:g} must be above 0 seconds, such as {such_as:g}"
        for key, value, such_as in (
            ("zookeeper.sg_retry_interval", z.sg_retry_interval, 5.0),
            ("zookeeper.session_timeout", z.session_timeout, 3.0),
            ("zookeeper.tick_time", z.tick_time, 2.0),
            ("etcd.lease", settings.etcd.lease, 3),
        )
        if value <= 0
    ]
    return problems


def _wrong_access(name: str, access: Access) -> list[str]:
    problems = wrong_files(name, access.tls_ca, access.tls_cert, access.tls_key)
    if access.tls_cert and not access.tls_ca:
        problems.append(
            f"{name}.tls_cert is for TLS, which {name}.tls_ca turns on: name who signs the server's certificate"
        )
    if bool(access.user) != bool(access.password):
        problems.append(f"{name}.user and {name}.password go together; one of them is missing")
    if any(sign in access.user + access.password for sign in "\r\n\0"):
        problems.append(f"{name}.user and {name}.password must each be one line")
    if name == "zookeeper" and ":" in access.user:
        problems.append("zookeeper.user must not contain a colon: what follows it would be taken for the password")
    if name == "memcached" and " " in access.user + access.password:
        problems.append("memcached.user and memcached.password must not contain a space, which stands between them")
    return problems


def _unknown(name: str) -> str:
    known = ", ".join(MEMBERSHIPS)
    return f"servicegroup_driver = {name!r} is no driver; known are {known}, and zk and mc for zookeeper and memcached"


def _wrong_addresses(name: str, addresses: str) -> list[str]:
    port = MEMBERSHIPS[name].port
    if not addresses:
        return [f"{name}.address is missing; the driver needs it, such as 'localhost:{port}'"]
    problems = []
    parts = addresses.split(",")
    for part in parts:
        host, _, number = part.strip().rpartition(":")
        if not host or not number.isdigit() or not 0 < int(number) < 65536:
            problems.append(
                f"{name}.address = {addresses!r}: {part.strip()!r} must be HOST:PORT, such as 'localhost:{port}'"
            )
    if MEMBERSHIPS[name].has_one_server and len(parts) > 1:
        problems.append(
            f"memcached.address = {addresses!r} must be one server; several that agree are ZooKeeper's or etcd's"
        )
    return problems
