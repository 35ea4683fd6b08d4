"""The configuration file: TOML into typed values. A wrong one does not start: it says which key and what is right."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from droveway import membership
from droveway.domain.faults import WrongConfiguration
from droveway.membership import EtcdConfig, MembershipSettings, MemcachedConfig, ZookeeperConfig
from droveway.periodic import scripts
from droveway.periodic.scripts import ScriptConfig

HOUR_S = 3600
NAME_MAX = 64
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_MAX}}}")


class ApiConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:8774"
    clouds_yaml: str = ""  # where the credentials of the first admin are written; empty: nowhere
    region: str = "RegionOne"
    token_expiry_s: int = 24 * 3600
    max_image_gib: int = 64


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host whose agent this machine's supervisor keeps running."""

    name: str
    hypervisor: str  # libvirt | simulated
    enter: tuple[str, ...] = ()  # what the agent's command line is prefixed with, to run inside the host
    libvirt_uri: str = "qemu:///system"
    peer_uri: str = ""
    data_uri: str = ""
    instances_path: str = ""
    host_state_path: str = ""
    boot_id_path: str = "/proc/sys/kernel/random/boot_id"


class SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cpu_allocation_ratio: float = 16.0
    ram_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0


class NatsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str = ""
    password: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    prefix: str = "droveway"


class RabbitmqConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    servers: tuple[str, ...] = ("amqp://127.0.0.1:5672",)
    user: str = "guest"
    password: str = "guest"
    virtual_host: str = "/"
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    prefix: str = "droveway"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times are seconds, as their names are known from OpenStack. `report_interval` and `service_down_time` differ with
    the membership driver where the file says nothing (droveway/membership.py)."""

    state_path: str
    name: str = "control"  # of this control: its services stand under it
    database: str = ""  # sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME; empty: SQLite in state_path
    bus: str = "socket"  # socket | nats | rabbitmq
    nats: NatsConfig = NatsConfig()
    rabbitmq: RabbitmqConfig = RabbitmqConfig()
    servicegroup_driver: str = "bus"
    report_interval: float | None = None
    service_down_time: float | None = None
    initial_delay: float = 0.0
    service_hung_time: float | None = None  # a process that beats and does not move for so long is hung
    storm_hold_time: float = 30.0  # how long nobody is judged by silence when too many fall silent at once
    zookeeper: ZookeeperConfig = ZookeeperConfig()
    etcd: EtcdConfig = EtcdConfig()
    memcached: MemcachedConfig = MemcachedConfig()
    shutdown_timeout: float = 20.0  # how long a guest may take to power off before it is ended
    api: ApiConfig = ApiConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    host: tuple[HostConfig, ...] = ()
    periodic: tuple[ScriptConfig, ...] = ()
    log_level: str = "info"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state_path}/droveway.sqlite"

    @property
    def images_path(self) -> str:
        return f"{self.state_path}/images"

    @property
    def bus_path(self) -> Path:
        return Path(self.state_path) / "bus.sock"

    @property
    def membership(self) -> MembershipSettings:
        return MembershipSettings(self.servicegroup_driver, self.report_interval, self.service_down_time,
                                  self.initial_delay, self.zookeeper, self.etcd, self.memcached)  # fmt: skip

    @property
    def scripts_of_control(self) -> tuple[ScriptConfig, ...]:
        return tuple(script for script in self.periodic if script.on == scripts.CONTROL)

    def scripts_on(self, host: str) -> tuple[ScriptConfig, ...]:
        """Those that the agent of that host runs."""
        return tuple(script for script in self.periodic if script.runs_on(host))

    @property
    def ping_interval_s(self) -> float:
        """A broker that hangs is left well before `service_down_time` is over: silence behind it is nobody's fault."""
        return min(2.0, self.membership.service_down_time_s / 8)

    @property
    def hung_time_s(self) -> float:
        if self.service_hung_time is not None:
            return self.service_hung_time
        return max(10.0, self.membership.service_down_time_s)

    def host_named(self, name: str) -> HostConfig:
        for host in self.host:
            if host.name == name:
                return host
        raise WrongConfiguration(f"there is no [[host]] named {name}; there is {', '.join(h.name for h in self.host)}")


def load(path: Path) -> Config:
    """Read and check. Raises WrongConfiguration."""
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise WrongConfiguration(f"{path}: there is no such file; name one with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise WrongConfiguration(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise WrongConfiguration(f"{path}: is not TOML: {error}") from None
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise WrongConfiguration(f"{path}: {_explain(str(error))}") from None
    for sentence in _wrongs(config):
        raise WrongConfiguration(f"{path}: {sentence}")
    return config


def _explain(error: str) -> str:
    """msgspec's words, with the way out for an unknown key."""
    error = error.replace("Object contains unknown field", "unknown key").replace("Object missing required field",
                                                                                 "missing key")  # fmt: skip
    parts: dict[str, type[msgspec.Struct]] = {"$.api": ApiConfig, "$.scheduler": SchedulerConfig, "$.host": HostConfig,
                                           "$.periodic": ScriptConfig}  # fmt: skip
    where = next((part for path, part in parts.items() if path in error), Config)
    if error.startswith("unknown key"):
        return f"{error}; the keys there are {', '.join(where.__struct_fields__)}"
    return error


def _wrong_database(url: str) -> list[str]:
    """Never with the URL itself, which may hold a password."""
    if not url or url.startswith("sqlite:///"):
        return []
    right = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
    scheme = url.partition("://")[0]
    if scheme not in {"postgresql", "postgresql+psycopg"}:
        return [f"database = {scheme[:NAME_MAX]}://… {right}" if "://" in url else f"database {right}"]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ["database: what follows HOST: is no port; in user and password : / ? # @ and % are percent-encoded"]
    if port == 0 or not parts.path.strip("/") or "/" in parts.path[1:] or "@" in parts.path:
        return [f"database {right}; in user and password : / ? # @ and % are percent-encoded"]
    return []


def _wrongs(config: Config) -> list[str]:
    """Every sentence that is wrong with it beyond its types."""
    wrongs = [*_wrong_numbers(config), *_wrong_names(config)]
    if not wrongs:
        wrongs += membership.wrongs(config.membership)
    if config.bus not in {"socket", "nats", "rabbitmq"}:
        wrongs.append(f"bus = {config.bus!r} must be socket, nats or rabbitmq")
    wrongs += _wrong_database(config.database)
    if not Path(config.state_path).is_absolute():
        wrongs.append(f"state_path = {config.state_path!r} must be an absolute path")
    address, _, port = config.api.listen.rpartition(":")
    if not address or not port.isdigit() or not 0 < int(port) < 65536:
        wrongs.append(f"api.listen = {config.api.listen!r} must be ADDRESS:PORT, such as 127.0.0.1:8774")
    if config.log_level not in {"debug", "info", "warning", "error"}:
        wrongs.append(f"log_level = {config.log_level!r} must be debug, info, warning or error")
    names = [host.name for host in config.host]
    wrongs += scripts.wrongs(config.periodic, names)
    wrongs += [f"two [[host]] are named {name}; names must differ" for name in names if names.count(name) > 1]
    for host in config.host:
        if host.hypervisor not in {"libvirt", "simulated"}:
            wrongs.append(f"host {host.name}: hypervisor = {host.hypervisor!r} must be libvirt or simulated")
        if host.hypervisor == "libvirt":
            wrongs += [
                f"host {host.name}: {key} is missing; a libvirt host needs it"
                for key in ("libvirt_uri", "peer_uri", "data_uri", "instances_path", "host_state_path", "boot_id_path")
                if not getattr(host, key)
            ]  # fmt: skip
    return wrongs


def _wrong_numbers(config: Config) -> list[str]:
    """TOML knows nan and inf, and no number here means anything below its least or beyond its most."""
    ratios = config.scheduler
    bounds: tuple[tuple[str, float, float, float, str], ...] = (
        (
            "report_interval",
            1.0 if config.report_interval is None else config.report_interval,
            0.01,
            HOUR_S,
            "seconds, such as 1.0",
        ),
        (
            "service_down_time",
            3.0 if config.service_down_time is None else config.service_down_time,
            0.01,
            HOUR_S,
            "seconds, such as 3.0",
        ),
        (
            "service_hung_time",
            10.0 if config.service_hung_time is None else config.service_hung_time,
            0.1,
            HOUR_S,
            "seconds, such as 10.0",
        ),
        ("storm_hold_time", config.storm_hold_time, 0, HOUR_S, "seconds, such as 30.0"),
        ("shutdown_timeout", config.shutdown_timeout, 0, HOUR_S, "seconds, such as 20.0"),
        ("api.token_expiry_s", config.api.token_expiry_s, 1, 10 * 365 * 24 * HOUR_S, "seconds, such as 86400"),
        ("api.max_image_gib", config.api.max_image_gib, 1, 1 << 20, "GiB, such as 64"),
        ("scheduler.cpu_allocation_ratio", ratios.cpu_allocation_ratio, 0.01, 1000, "times, such as 16.0"),
        ("scheduler.ram_allocation_ratio", ratios.ram_allocation_ratio, 0.01, 1000, "times, such as 1.0"),
        ("scheduler.disk_allocation_ratio", ratios.disk_allocation_ratio, 0.01, 1000, "times, such as 1.0"),
    )
    return [
        f"{key} = {value} must be from {least} to {most} {what}"
        for key, value, least, most, what in bounds if not least <= value <= most
    ]  # fmt: skip


def _wrong_names(config: Config) -> list[str]:
    names = (("name", config.name), ("api.region", config.api.region),
             *(("the name of a [[host]]", host.name) for host in config.host))  # fmt: skip
    return [
        f"{key} = {value!r} must be 1 to {NAME_MAX} of the characters a-z A-Z 0-9 . - _"
        for key, value in names if not _NAME.fullmatch(value)
    ]  # fmt: skip
