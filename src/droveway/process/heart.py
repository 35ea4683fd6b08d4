"""Where a host's heart is, how an agent reaches it, and how a process becomes one."""

from __future__ import annotations

import json
import marshal
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import msgspec

import droveway
from droveway.agents.heart import heart_bytes
from droveway.agents.heart.process import Settings
from droveway.agents.pulse import HeartPulse, LoopWatch, Pulse
from droveway.config.file import Config
from droveway.config.hosts import HostConfig
from droveway.config.http_bounds import raise_open_files
from droveway.domain.faults import Conflict, WrongConfiguration
from droveway.drivers.clock import SystemChance, SystemClock

BEGIN = "import sys; sys.path.append({!r}); from droveway.agents.heart.process import main; main()"


def pulse(config: Config, host: HostConfig, boot_id: str, watch: LoopWatch, service: str) -> Pulse:
    """A service's side of its host's heart."""
    return HeartPulse(
        str(_socket_path(config, host)),
        host.name,
        boot_id,
        service,
        watch,
        SystemClock(),
        SystemChance(),
        config.membership.report_interval_s,
    )


def boot_id(host: HostConfig) -> str:
    try:
        return Path(host.boot_id_path).read_text().strip()
    except OSError as error:
        raise WrongConfiguration(
            f"host {host.name}: boot_id_path = {host.boot_id_path} cannot be read: {error.strerror}; "
            "name a file whose one line changes with each boot"
        ) from None


def only_one(lock_path: Path, what: str) -> int:
    """A lock for the life of the process, whatever it becomes: two of these never work in one place."""
    import fcntl

    lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Conflict(f"another {what} is running; it must end first") from None
    return lock


def _socket_path(config: Config, host: HostConfig) -> Path:
    """Simulated hosts share a heart as they share a process."""
    place = Path(config.state_path if host.shares_a_process else host.host_state_path)
    path = place / "heart.sock"
    if len(os.fsencode(path)) > heart_bytes.PATH_MAX_BYTES:
        raise WrongConfiguration(
            f"the path of the heart {path} is longer than {heart_bytes.PATH_MAX_BYTES} bytes; "
            "choose a shorter state_path or host_state_path"
        )
    return path


def settings(config: Config, hosts: Sequence[HostConfig], alive_fd: int | None) -> Settings:
    """What the heart of these hosts must know."""
    from droveway.drivers.bus.broker_messages import word

    ends_guests = all(host.guests_end_with_agent for host in hosts)
    if len(hosts) > 1 and not all(host.shares_a_process for host in hosts):
        raise WrongConfiguration(
            f"a real host has a heart of its own; this one was given {', '.join(host.name for host in hosts)}"
        )
    prefix = config.rabbitmq.prefix if config.bus == "rabbitmq" else config.nats.prefix
    named = tuple(
        (host.name, "" if ends_guests else boot_id(host), f"{prefix}.beat.{word(host.name)}".encode()) for host in hosts
    )
    bus: dict[str, Any] = {"bus_path": str(config.bus_path)}
    if config.bus != "socket":
        bus = _nats(config) if config.bus == "nats" else _rabbitmq(config)
    return Settings(
        str(_socket_path(config, hosts[0])),
        named,
        config.membership.report_interval_s,
        config.initial_delay,
        config.log_level == "debug",
        -1 if alive_fd is None else alive_fd,
        **bus,
    )


def _nats(config: Config) -> dict[str, Any]:
    from droveway.drivers.bus.nats_link import DEFAULT_PORT, NatsLink, NatsSettings

    nats = NatsLink(msgspec.convert(msgspec.to_builtins(config.nats), NatsSettings), SystemChance()).settings
    introduction: dict[str, Any] = {
        "verbose": False,
        "pedantic": False,
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "name": f"{nats.prefix} heart",
    }
    introduction |= nats.identity
    return {
        "servers": tuple((at.hostname or "", at.port or DEFAULT_PORT) for at in map(urlsplit, nats.servers)),
        "introduction": (b"CONNECT " + json.dumps(introduction).encode() + b"\r\n",),
        "wants_tls": nats.wants_tls,
        "tls": (nats.tls_ca, nats.tls_cert, nats.tls_key),
        "ping_s": config.ping_interval_s,
    }


def _rabbitmq(config: Config) -> dict[str, Any]:
    from pamqp import frame
    from pamqp.commands import Channel, Connection

    from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings

    rabbit = RabbitLink(msgspec.convert(msgspec.to_builtins(config.rabbitmq), RabbitSettings), SystemChance()).settings
    return {
        "servers": tuple(rabbit.address(server) for server in rabbit.servers),
        "introduction": (
            frame.marshal(rabbit.start_ok(), 0),
            frame.marshal(Connection.Open(rabbit.virtual_host), 0),
            frame.marshal(Channel.Open(), 1) + frame.marshal(rabbit.exchange(), 1),
        ),
        "exchange": rabbit.prefix,
        "wants_tls": rabbit.wants_tls,
        "tls": (rabbit.tls_ca, rabbit.tls_cert, rabbit.tls_key),
        "ping_s": config.ping_interval_s,
    }


def heart(config: Config, config_path: Path, names: tuple[str, ...], alive_fd: int | None) -> NoReturn:
    """This process becomes the heart of these hosts: of the whole program nothing stays in memory but that."""
    os.umask(0o077)
    hosts = [config.host_named(name) for name in names]
    become = settings(config, hosts, alive_fd)
    lock = only_one(Path(become.path).with_suffix(".lock"), f"heart of {', '.join(names)}")
    os.set_inheritable(lock, True)
    raise_open_files()  # two a connection, of many simulated hosts
    # Not on the command line, which everybody may read: it may hold the broker's password.
    held = os.memfd_create("heart settings", 0)
    os.write(held, marshal.dumps(vars(become)))
    source = str(Path(next(iter(droveway.__path__))).parent)
    # What follows the code is for people who look at the processes, and for the settings' number.
    arguments = [
        "droveway.main",
        "heart",
        *(word for name in names for word in ("--host", name)),
        "--config",
        str(config_path),
        f"settings_fd={held}",
    ]
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", BEGIN.format(source), *arguments])
