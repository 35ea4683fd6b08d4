"""The configuration file: TOML into typed values. A wrong one does not start: it says which key and what is right.

More than 400 lines because every key of the file stands here.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec

from droveway.config import backup as backup_config
from droveway.config import (
    certificates,
    http_bounds,
    identity,
    images,
    membership,
    migration,
    moved,
    network,
    roles,
    scripts,
    tls,
    volume,
)
from droveway.config import consoles as console_config
from droveway.config import hosts as host_config
from droveway.config.backup import BackupConfig
from droveway.config.certificates import CaConfig
from droveway.config.consoles import ConsoleConfig
from droveway.config.drivers import BUSES, known
from droveway.config.hosts import HostConfig
from droveway.config.http_bounds import HttpBounds
from droveway.config.identity import IdentityConfig
from droveway.config.images import ImageCacheConfig
from droveway.config.membership import EtcdConfig, MembershipSettings, MemcachedConfig, ZookeeperConfig
from droveway.config.migration import MigrationConfig
from droveway.config.network import NetworkConfig
from droveway.config.scripts import ScriptConfig
from droveway.config.volume import VolumeConfig
from droveway.domain import consoles, service_kinds
from droveway.domain.faults import WrongConfiguration
from droveway.domain.placement import PlacementSettings, Weights
from droveway.domain.quota import LIMIT_MAX, UNLIMITED, Quotas
from droveway.domain.service_kinds import COMPUTE, SCRIPTS

HOUR_S = 3600
NAME_MAX = 64
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_MAX}}}")


class ApiConfig(HttpBounds, frozen=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:8774"  # empty, for a control: it serves no API, others do
    clouds_yaml: str = ""  # where the credentials of the first admin are written; empty: nowhere
    region: str = "RegionOne"  # under which the endpoints stand in the catalog
    token_expiry_s: int = 24 * 3600  # how long a token is good
    max_image_gib: int = 64  # the largest image that is taken
    image_streams_max: int = 16  # images that hosts fetch from this API at once
    images_reserved_mb: int = 1024  # free disk under `images` that no upload takes; at most a tenth of what there is
    url: str = ""  # as clients reach it; empty: http:// and `listen`, or https:// with `tls_cert`
    metrics_by_project: bool = False  # GET /metrics, which needs no token, tells what each project holds, by its id
    tls_cert: str = ""  # a file: with it and its key `listen` speaks TLS; both are read again when they change
    tls_key: str = ""  # a file: its key, without a password
    tls_ca: str = ""  # a file: who has signed it, for `clouds_yaml`; empty: one that clients trust anyway
    allowed_origins: tuple[str, ...] = ()  # of web pages that may call this API, such as a dashboard's; empty: none
    agents_listen: str = ""  # where hosts renew their certificates, with TLS; empty: this API hands out none
    agents_url: str = ""  # as hosts reach that; empty: https:// and `agents_listen`


class SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under Nova's names. A multiplier below 0 packs instead of spreading."""

    cpu_allocation_ratio: float = 16.0  # vcpus promised for each there is
    ram_allocation_ratio: float = 1.0  # likewise of memory
    disk_allocation_ratio: float = 1.0  # likewise of disk
    reserved_host_memory_mb: int = 0  # of each host, beside what the host itself keeps back
    reserved_host_disk_mb: int = 0  # likewise of disk
    wait_for_capacity: float = 0.0  # how long a new server that finds no host waits for one; 0: it fails at once
    max_attempts: int = 3  # hosts on which a server is tried when the one before refused
    ram_weight_multiplier: float = 1.0  # how much free memory counts
    cpu_weight_multiplier: float = 1.0  # how much free vcpus count
    disk_weight_multiplier: float = 1.0  # how much free disk counts
    instances_weight_multiplier: float = 0.0  # how much few instances count
    build_failure_weight_multiplier: float = 1000.0  # how much few failed starts count
    soft_group_weight_multiplier: float = 1.0  # how much a soft server group counts

    @property
    def settings(self) -> PlacementSettings:
        weights = Weights(
            self.ram_weight_multiplier,
            self.cpu_weight_multiplier,
            self.disk_weight_multiplier,
            self.instances_weight_multiplier,
            self.build_failure_weight_multiplier,
            self.soft_group_weight_multiplier,
        )
        return PlacementSettings(
            self.cpu_allocation_ratio,
            self.ram_allocation_ratio,
            self.disk_allocation_ratio,
            self.reserved_host_memory_mb,
            -(-self.reserved_host_disk_mb // 1024),
            weights,
            wait_for_capacity_s=self.wait_for_capacity,
        )


class NatsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)  # tried in turn; tls:// for TLS
    user: str = ""  # at the broker
    password: str = ""  # at the broker
    jwt: str = ""  # instead of these two: a token that the account of the broker has signed
    tls_ca: str = ""  # a file: who may sign the certificate of the broker
    tls_cert: str = ""  # a file: the own certificate, where the broker asks for one
    tls_key: str = ""  # a file: its key
    prefix: str = "droveway"  # of all subjects


class AgentsNatsConfig(NatsConfig, frozen=True, forbid_unknown_fields=True):
    """As a joining agent is to know it; and the key that signs each host's own identity."""

    signing_key: str = ""  # a file with the seed of the account, or of a signing key of it; empty: all share one user
    account: str = ""  # its public key, where the seed is that of a signing key


class RabbitmqConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    servers: tuple[str, ...] = ("amqp://127.0.0.1:5672",)  # tried in turn; tls:// or amqps:// for TLS
    user: str = "guest"  # at the broker
    password: str = "guest"  # at the broker
    virtual_host: str = "/"  # at the broker
    makes_exchange: bool = True  # False: it is there, and this user may not make it
    tls_ca: str = ""  # a file: who may sign the certificate of the broker
    tls_cert: str = ""  # a file: the own certificate, where the broker asks for one
    tls_key: str = ""  # a file: its key
    prefix: str = "droveway"  # of all subjects


class AgentsRabbitmqConfig(RabbitmqConfig, frozen=True, forbid_unknown_fields=True):
    """As a joining agent is to know it; and whether each host has a user of its own, which the management API makes."""

    per_host: bool = False  # False, and no management_url: all share one user
    management_url: str = ""  # of the management API: https://ADDRESS:15671
    management_user: str = ""  # with the tag administrator
    management_password: str = ""  # of that user


class AgentsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker as the agents are to know it, which a joining one is told: with a user of their own; and the APIs."""

    nats: AgentsNatsConfig | None = None
    rabbitmq: AgentsRabbitmqConfig | None = None
    api_urls: tuple[str, ...] = ()  # as hosts reach the APIs, for images; empty: api.url


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times are seconds, as their names are known from OpenStack. `report_interval` and `service_down_time` differ with
    the membership driver where the file says nothing (droveway/config/membership.py)."""

    state_path: str  # what the program keeps: database, socket, first password
    role: str = "all"  # whose file this is: all | control | api | agent
    name: str = "control"  # of this control: its services stand under it
    database: str = ""  # sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME; empty: SQLite in state_path
    images: str = ""  # where images lie, the same files for every API; empty: in state_path
    image_store: str = "file"  # file: hosts fetch them from any API; path: every host sees `images`
    backup: BackupConfig = BackupConfig()  # where the backups of volumes lie
    image_cache: ImageCacheConfig = ImageCacheConfig()  # of the hosts of this file
    bus: str = "socket"  # socket | nats | rabbitmq
    nats: NatsConfig = NatsConfig()
    rabbitmq: RabbitmqConfig = RabbitmqConfig()
    servicegroup_driver: str = "bus"  # who judges presence: bus | db | zookeeper | memcached | etcd
    report_interval: float | None = None  # between two heartbeats; by driver: bus, zookeeper, etcd 1, db, memcached 10
    service_down_time: float | None = None  # silence after which a host is down; by driver: 3, or 60
    initial_delay: float = 0.0  # of the first heartbeat
    service_hung_time: float | None = None  # a process that beats and does not move for so long is hung
    storm_hold_time: float = 30.0  # how long missing heartbeats do not count when too many hosts fall silent at once
    zookeeper: ZookeeperConfig = ZookeeperConfig()
    etcd: EtcdConfig = EtcdConfig()
    memcached: MemcachedConfig = MemcachedConfig()
    deleted_kept_days: float = 7.0  # how long rows of what was deleted, has ended or was said are kept
    resize_confirm_window: float = 0.0  # seconds until a resize is confirmed by itself; 0: it waits for its user
    reclaim_instance_interval: float = 0.0  # how long a deleted server can be restored; 0: not at all
    shelved_offload_time: float = 0.0  # until a shelved server leaves its host; 0: at once; -1: when asked to alone
    shutdown_timeout: float = 20.0  # how long a guest may take to power off before it is ended
    api: ApiConfig = ApiConfig()
    identity: IdentityConfig = IdentityConfig()
    ca: CaConfig = CaConfig()
    agents: AgentsConfig = AgentsConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    migration: MigrationConfig = MigrationConfig()
    quota: Quotas = Quotas()  # of each project; `openstack quota set` changes them for one, or for all
    network: NetworkConfig = NetworkConfig()
    volume: VolumeConfig = VolumeConfig()
    console: ConsoleConfig = ConsoleConfig()
    host: tuple[HostConfig, ...] = ()
    periodic: tuple[ScriptConfig, ...] = ()
    log_level: str = "info"  # debug | info | warning | error

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state_path}/droveway.sqlite"

    @property
    def images_path(self) -> str:
        return self.images or f"{self.state_path}/images"

    @property
    def api_url(self) -> str:
        return self.api.url.rstrip("/") or f"{self.api_scheme}://{self.api.listen}"

    @property
    def api_scheme(self) -> str:
        return "https" if self.api.tls_cert else "http"

    @property
    def agents_url(self) -> str:
        return self.api.agents_url.rstrip("/") or f"https://{self.api.agents_listen}"

    @property
    def ca_directory(self) -> str:
        return self.ca.directory or f"{self.state_path}/ca"

    @property
    def is_alone(self) -> bool:
        """Whether one process is all of control and API; over a broker there may be others."""
        return self.bus == "socket"

    @property
    def bus_path(self) -> Path:
        return Path(self.state_path) / "bus.sock"

    @property
    def has_console_socket(self) -> bool:
        """Whether consoles are carried on this machine: where all are one program, and where the operator says so."""
        return self.is_alone or self.console.on_this_machine

    @property
    def consoles_path(self) -> Path:
        """The unix socket at which agents of this machine hand over consoles."""
        return Path(self.state_path) / consoles.SOCKET

    @property
    def membership(self) -> MembershipSettings:
        return MembershipSettings(
            self.servicegroup_driver,
            self.report_interval,
            self.service_down_time,
            self.initial_delay,
            self.zookeeper,
            self.etcd,
            self.memcached,
        )

    @property
    def scripts_of_control(self) -> tuple[ScriptConfig, ...]:
        return tuple(script for script in self.periodic if script.on == scripts.CONTROL)

    def scripts_on(self, host: str, service: str) -> tuple[ScriptConfig, ...]:
        """Those that that service of the host runs: a service that is there for scripts has all of them, and where
        there is none the compute agent has."""
        services = self.host_named(host).services
        if service != (SCRIPTS if SCRIPTS in services else COMPUTE):
            return ()
        return tuple(script for script in self.periodic if script.runs_on(host))

    @property
    def ping_interval_s(self) -> float:
        """A broker that hangs is left well before `service_down_time` is over: silence behind it says nothing of
        hosts."""
        return min(2.0, self.membership.service_down_time_s / 8)

    @property
    def hung_time_s(self) -> float:
        if self.service_hung_time is not None:
            return self.service_hung_time
        return max(10.0, self.membership.service_down_time_s)

    def names_of(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Those asked for, or all there are. Raises WrongConfiguration."""
        if not asked and not self.host:
            raise WrongConfiguration("there is no [[host]] in this file; an agent needs one")
        return asked or tuple(host.name for host in self.host)

    def carriers(self, names: tuple[str, ...], service: str) -> tuple[str, ...]:
        """Those of these hosts that carry that service. Raises WrongConfiguration when one was named that does not."""
        if reason := service_kinds.name_error(service):
            raise WrongConfiguration(f"--service {reason}")
        found = tuple(name for name in self.names_of(names) if service in self.host_named(name).services)
        missing = [name for name in names if name not in found] or ([] if found else [self.host[0].name])
        if missing:
            carried = ", ".join(self.host_named(missing[0]).services)
            raise WrongConfiguration(
                f"host {missing[0]} does not carry {service}, but {carried}: name one of them with "
                "--service, or add it to services of that [[host]]"
            )
        return found

    def host_named(self, name: str) -> HostConfig:
        for host in self.host:
            if host.name == name:
                return host
        raise WrongConfiguration(f"there is no [[host]] named {name}; there is {', '.join(h.name for h in self.host)}")


def load(path: Path, start: str = "") -> Config:
    """Read and check. `start`: which start wants it (config/roles.py). Raises WrongConfiguration."""
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise WrongConfiguration(f"{path}: there is no such file; give the path of a configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise WrongConfiguration(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise WrongConfiguration(f"{path}: is not TOML: {error}") from None
    for reason in (*roles.problems(raw, start), *moved.problems(raw)):
        raise WrongConfiguration(f"{path}: {reason}")
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise WrongConfiguration(f"{path}: {_explain(str(error))}") from None
    for reason in _problems(config):
        raise WrongConfiguration(f"{path}: {reason}")
    return config


def _explain(error: str) -> str:
    """msgspec's words, with the way out for an unknown key."""
    error = error.replace("Object contains unknown field", "unknown key").replace(
        "Object missing required field", "missing key"
    )
    if error.startswith("unknown key"):
        return f"{error}; the keys there are {', '.join(_part(error).__struct_fields__)}"
    return error


def _part(error: str) -> type[msgspec.Struct]:
    """The part of the file that an error is about: it ends in `at `$.host[...].name``."""
    found: type[msgspec.Struct] = Config
    for name in re.findall(r"\.(\w+)", error.rpartition("`$")[2]):
        hint = get_type_hints(found)[name]
        kinds = [
            kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        ]
        if not kinds:
            break
        found = kinds[0]
    return found


def _problems(config: Config) -> list[str]:
    """Every sentence that is wrong with it beyond its types."""
    problems = [*_wrong_numbers(config), *_wrong_names(config)]
    if not problems:
        problems += membership.problems(config.membership)
    if config.bus not in BUSES:
        problems.append(f"bus = {config.bus!r} must be {known(BUSES)}")
    problems += roles.wrong_database(config.database)
    if not Path(config.state_path).is_absolute():
        problems.append(f"state_path = {config.state_path!r} must be an absolute path")
    if config.images and not Path(config.images).is_absolute():
        problems.append(f"images = {config.images!r} must be an absolute path")
    problems += images.problems(config.role, config.image_store, config.agents.api_urls, config.api_url)
    if config.api.url and not config.api.url.startswith(("http://", "https://")):
        problems.append(f"api.url = {config.api.url!r} must be http://HOST:PORT or https://HOST:PORT")
    problems += roles.wrong_together(config.role, config.bus, config.api.listen)
    if config.api.listen and config.role != "agent":
        problems += http_bounds.wrong_address(config.api.listen)
        problems += http_bounds.wrong_url(config.api.listen, config.api.url, scheme=config.api_scheme)
        problems += tls.wrong_files("api", config.api.tls_ca, config.api.tls_cert, config.api.tls_key)
    problems += migration.problems(config.migration)
    problems += network.problems(config.network)
    problems += volume.problems(config.volume)
    problems += backup_config.problems(config.backup)
    problems += identity.problems(config.identity)
    problems += console_config.problems(config.console, config.api.allowed_origins)
    problems += certificates.problems(config.ca, config.api, config.host)
    if config.log_level not in {"debug", "info", "warning", "error"}:
        problems.append(f"log_level = {config.log_level!r} must be debug, info, warning or error")
    names = [host.name for host in config.host]
    problems += scripts.problems(config.periodic, names)
    problems += [f"two [[host]] are named {name}; names must differ" for name in names if names.count(name) > 1]
    problems += [reason for host in config.host for reason in host_config.problems(host)]
    return problems


def _or(value: float | None, usual: float) -> float:
    return usual if value is None else value


def _wrong_numbers(config: Config) -> list[str]:
    """TOML knows nan and inf, and no number here means anything below its least or beyond its most."""
    bounds: tuple[tuple[str, float, float, float, str], ...] = (
        ("report_interval", _or(config.report_interval, 1.0), 0.01, HOUR_S, "seconds, such as 1.0"),
        ("service_down_time", _or(config.service_down_time, 3.0), 0.01, HOUR_S, "seconds, such as 3.0"),
        ("service_hung_time", _or(config.service_hung_time, 10.0), 0.1, HOUR_S, "seconds, such as 10.0"),
        ("storm_hold_time", config.storm_hold_time, 0, HOUR_S, "seconds, such as 30.0"),
        ("shutdown_timeout", config.shutdown_timeout, 0, HOUR_S, "seconds, such as 20.0"),
        ("api.token_expiry_s", config.api.token_expiry_s, 1, 10 * 365 * 24 * HOUR_S, "seconds, such as 86400"),
        ("api.max_image_gib", config.api.max_image_gib, 1, 1 << 20, "GiB, such as 64"),
        ("api.image_streams_max", config.api.image_streams_max, 1, 1024, "images at once, such as 16"),
        ("api.images_reserved_mb", config.api.images_reserved_mb, 0, 1 << 40, "MiB, such as 1024"),
        ("ca.validity_days", config.ca.validity_days, 1, 825, "days, such as 90"),
        ("deleted_kept_days", config.deleted_kept_days, 0.01, 3650, "days, such as 7"),
    )
    all_bounds = (
        *bounds,
        *images.numbers(config.image_cache),
        *http_bounds.numbers(config.api),
        *_of_scheduler(config.scheduler),
        *_limits(config.quota),
        *migration.numbers(config.migration),
        *network.numbers(config.network),
        *volume.numbers(config.volume),
        *identity.numbers(config.identity),
        *console_config.numbers(config.console),
    )
    return [
        f"{key} = {value} must be from {least} to {most} {what}"
        for key, value, least, most, what in all_bounds
        if not least <= value <= most
    ]


def _of_scheduler(scheduler: SchedulerConfig) -> list[tuple[str, float, float, float, str]]:
    bounds: dict[str, tuple[float, float, str]] = {
        "cpu_allocation_ratio": (0.01, 1000, "times, such as 16.0"),
        "ram_allocation_ratio": (0.01, 1000, "times, such as 1.0"),
        "disk_allocation_ratio": (0.01, 1000, "times, such as 1.0"),
        "reserved_host_memory_mb": (0, 1 << 30, "MiB, such as 512"),
        "reserved_host_disk_mb": (0, 1 << 40, "MiB, such as 10240"),
        "wait_for_capacity": (0, 7 * 24 * HOUR_S, "seconds, such as 600.0"),
        "max_attempts": (1, 100, "hosts, such as 3"),
    }
    any_weight = (-1e6, 1e6, "times, such as 1.0")
    return [
        (f"scheduler.{name}", value, *(any_weight if name.endswith("_weight_multiplier") else bounds[name]))
        for name, value in msgspec.structs.asdict(scheduler).items()
    ]


def _limits(quotas: Quotas) -> list[tuple[str, int, int, int, str]]:
    return [
        (f"quota.{name}", limit, UNLIMITED, LIMIT_MAX, "where -1 is no limit, such as 10")
        for name, limit in msgspec.structs.asdict(quotas).items()
    ]


def _wrong_names(config: Config) -> list[str]:
    names = (
        ("name", config.name),
        ("api.region", config.api.region),
        *(("the name of a [[host]]", host.name) for host in config.host),
    )
    return [
        f"{key} = {value!r} must be 1 to {NAME_MAX} of the characters a-z A-Z 0-9 . - _"
        for key, value in names
        if not _NAME.fullmatch(value)
    ]
