"""The servers a cloud stands on: a broker and a database, as the operator of several machines would run them.

They live in the cloud's own directory, on loopback, and outlive `./dev up`; `./dev down` ends them and keeps the data.
Control and API know one user of the broker, the agents another that may do less.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lab import network, nodes, postgresql, processes, servers

CLONE = Path(__file__).resolve().parent.parent
BUSES, STORES, STORAGES = ("socket", "nats", "rabbitmq"), ("sqlite", "postgresql"), ("dir", "ceph", "lvm")
DATABASE, PREFIX = "droveway", "droveway"
CONTROL, AGENTS = "control", "agents"  # users of the broker
ENDS_S, GATE_S = 30.0, 10.0
# What an agent and a heart may do at the broker (docs/operating.md): speak for hosts, hear what is for hosts.
SPOKEN, HEARD = ("hello.*", "hello-to.*.*", "notice.*.*.*", "beat.*", "answer.*.*.*"), ("ask", "ask.*", "agent.*.*")


class BackingFailed(Exception):
    """A server of the cloud could not be started or ended; the message says what to do."""


class Choice(NamedTuple):
    """What `./dev up` was told to stand the cloud on."""

    bus: str = "socket"
    store: str = "sqlite"
    storage: str = "dir"  # where volumes lie (lab/storage.py)

    @property
    def is_apart(self) -> bool:
        """Whether control, API and agents are processes that meet at a broker."""
        return self.bus != "socket"

    @property
    def servers(self) -> list[str]:
        return [name for name in (self.bus, self.store) if name not in ("socket", "sqlite")]

    def __str__(self) -> str:
        return f"--bus {self.bus} --store {self.store} --storage {self.storage}"


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


class Backing:
    """The servers of the cloud in that directory."""

    def __init__(self, home: Path, choice: Choice) -> None:
        self.choice = choice
        self.directory = home / "servers"
        self._mark = f"DROVEWAY_SERVERS={home}"  # carried by all of them
        self._begun: dict[str, nodes.Node] = {}  # and not waited for yet
        self._children: list[nodes.Node | subprocess.Popen[bytes]] = []
        self._gate_wait: Callable[[], None] = lambda: None

    # -- how they are reached -----------------------------------------------------------------------------------------
    def port(self, name: str) -> int:
        return int((self.directory / name / "port").read_text())

    def bus_settings(self, user: str, address: str = "127.0.0.1") -> dict[str, Any]:
        """Keys of a configuration file."""
        scheme = "nats" if self.choice.bus == "nats" else "amqp"
        return {
            "servers": [f"{scheme}://{address}:{self.port(self.choice.bus)}"],
            "user": user,
            "password": self._secret(user),
        }

    @property
    def database_url(self) -> str:
        """Empty for SQLite."""
        if self.choice.store == "sqlite":
            return ""
        password = self._secret("postgresql")
        return f"postgresql://{postgresql.USER}:{password}@127.0.0.1:{self.port('postgresql')}/{DATABASE}"

    def _secret(self, name: str) -> str:
        kept = self.directory / "secrets.json"
        known: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
        if name not in known:
            known[name] = secrets.token_urlsafe(24)
            unfinished = kept.with_suffix(".new")
            unfinished.touch(0o600)
            unfinished.write_text(json.dumps(known))
            unfinished.rename(kept)
        return known[name]

    # -- up and down --------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start those that do not run, all at once, and wait for the database: the broker is waited for by everybody
        who needs it, and `wait` says when it does not come."""
        if not self.choice.servers:
            return
        for name in self.choice.servers:
            obstacle = servers.obstacle(name)
            if obstacle is not None:
                raise BackingFailed(obstacle)
        self._must_be_entered()
        self.directory.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            self.directory.chmod(0o711)  # whatever the umask takes away: they pass here to what is theirs
        if not any(map(self._running, self.choice.servers)):  # those of a start that was interrupted are in the way
            processes.end(lambda: processes.with_environment(self._mark), signal.SIGKILL, ENDS_S)
        for name in self.choice.servers:
            if self._running(name) is None:
                self._begun[name] = self._begin(name)
        if self.choice.store == "postgresql":
            self._wait("postgresql")
            self._make_database()

    def wait(self) -> None:
        """Until all serve that were started here."""
        for name in list(self._begun):
            self._wait(name)
        self._gate_wait()

    def _wait(self, name: str) -> None:
        node = self._begun.pop(name, None)
        try:
            if node is not None:
                node.wait()
        except nodes.ServerFailed as failure:
            raise BackingFailed(str(failure)) from None

    @property
    def has_gate(self) -> bool:
        return self._running("gate") is not None

    def open_gate(self, namespace: str, address: str, *ports: int) -> None:
        """Let the lab's hosts reach what listens there on loopback; `wait` says when they do not. It is made anew: the
        namespace may be another one."""
        old = self._running("gate")
        if old is not None:
            processes.end(lambda: [old] if old.is_alive() else [], signal.SIGKILL, ENDS_S)
        directory = self.directory / "gate"
        directory.mkdir(parents=True, exist_ok=True)
        name, _, value = self._mark.partition("=")
        with (directory / "log").open("wb") as log, processes.uninterrupted():
            started = subprocess.Popen(
                [sys.executable, "-m", "lab.gate", namespace, address, *map(str, ports)],
                cwd=CLONE,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, name: value},
            )
            processes.record(directory / "pid", started.pid)
        self._children.append(started)

        def answers() -> bool:
            with network.inside(namespace):
                return all(_answers(address, port) for port in ports)

        def wait() -> None:
            ended = processes.wait_for(lambda: answers() or started.poll() is not None, GATE_S)
            if not ended or started.poll() is not None:
                raise BackingFailed(f"the hosts cannot reach this machine: {(directory / 'log').read_text()[-500:]}")

        self._gate_wait = wait

    def end(self) -> None:
        """The database in good order; a broker holds nothing that is worth waiting for."""
        database = self._running("postgresql")
        if database is not None:
            database.send(signal.SIGINT)
            processes.wait_for(lambda: not database.is_alive(), ENDS_S)
        if not processes.end(lambda: processes.with_environment(self._mark), signal.SIGKILL, ENDS_S):
            raise BackingFailed(f"servers of {self.directory} outlived SIGKILL by {ENDS_S:.0f} s")
        for child in self._children:
            child.reap() if isinstance(child, nodes.Node) else child.wait(ENDS_S)
        self._children.clear()
        for kept in self.directory.glob("*/pid"):
            kept.unlink()

    # -- one server ---------------------------------------------------------------------------------------------------
    def _running(self, name: str) -> processes.Process | None:
        return processes.recorded(self.directory / name / "pid")

    def _begin(self, name: str) -> nodes.Node:
        place = self.directory / name
        place.mkdir(exist_ok=True)
        port = self._choose_port(name)
        made = {"nats": self._nats, "rabbitmq": self._rabbitmq, "postgresql": self._postgresql}[name](place, port)
        key, _, value = self._mark.partition("=")
        made.stays({key: value})
        with processes.uninterrupted():
            made.begin()
            self._children.append(made)
            processes.record(place / "pid", made.pid)
        return made

    def _choose_port(self, name: str) -> int:
        """The one it had, if it is still free."""
        kept = self.directory / name / "port"
        if kept.exists() and nodes.keep_port(int(kept.read_text())):
            return int(kept.read_text())
        (port,) = servers.free_ports(1)
        kept.write_text(f"{port}\n")
        return port

    def _nats(self, place: Path, port: int) -> nodes.Node:
        def allowed(words: tuple[str, ...]) -> str:
            return json.dumps([f"{PREFIX}.{word}" for word in words])

        configuration = place / "nats.conf"
        configuration.touch(0o600)
        configuration.write_text(
            f'listen = "127.0.0.1:{port}"\nmax_payload = 4194304\nauthorization {{ users = [\n'
            f'  {{ user = "{CONTROL}", password = "{self._secret(CONTROL)}" }}\n'
            f'  {{ user = "{AGENTS}", password = "{self._secret(AGENTS)}",\n'
            f"    permissions = {{ publish = {allowed(SPOKEN)}, subscribe = {allowed(HEARD)} }} }}\n] }}\n"
        )
        return servers.nats_node(place, port, "-c", str(configuration))

    def _rabbitmq(self, place: Path, port: int) -> nodes.Node:
        node = servers.RabbitmqNode(place, port)
        queue = f"^({PREFIX}|amq\\.gen.*)$"

        def words(patterns: tuple[str, ...]) -> str:
            return f"^{PREFIX}\\.({'|'.join(one.partition('.')[0] for one in patterns)})(\\..*)?$"

        node.define(
            {CONTROL: self._secret(CONTROL), AGENTS: self._secret(AGENTS)},
            {CONTROL: (".*", ".*", ".*"), AGENTS: (queue, queue, queue)},
            {AGENTS: (PREFIX, words(SPOKEN), words(HEARD))},
        )
        return node

    def _postgresql(self, place: Path, port: int) -> nodes.Node:
        """A process that was killed and not waited for is a living server to PostgreSQL, and none to us."""
        lock = place / "data" / "postmaster.pid"
        if lock.exists() and processes.process(int(lock.read_text().split("\n")[0])) is None:
            lock.unlink()
        return postgresql.PostgresqlNode(is_safe=True, home=place, port=port, password=self._secret("postgresql"))

    def _make_database(self) -> None:
        port, password = self.port("postgresql"), self._secret("postgresql")
        if not processes.wait_for(lambda: postgresql.serves(password, port), nodes.READY_S):  # it was begun before
            raise BackingFailed(f"PostgreSQL does not serve; see {self.directory / 'postgresql' / 'log'}")
        server = postgresql.Postgresql([], port=port, password=password)
        if not server.say(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):
            server.create(DATABASE)

    def _must_be_entered(self) -> None:
        """As root the broker and the database run as users of their own."""
        home = self.directory.parent
        if os.geteuid() != 0:
            return
        home.chmod(home.stat().st_mode | 0o011)
        closed = [str(one) for one in home.resolve().parents if not one.stat().st_mode & 0o001]
        if closed:
            raise BackingFailed(
                f"{', '.join(self.choice.servers)} run as users of their own, who may not enter {closed[0]}: "
                "set DROVEWAY_DIR to a directory below one that all may enter, such as /var/lib/droveway"
            )
