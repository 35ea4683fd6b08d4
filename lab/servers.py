"""Real servers for tests, demos and benchmarks: ZooKeeper (one node or several), etcd, memcached, NATS, RabbitMQ.

Each runs on loopback ports of its own, in a directory of its own, without systemd:

    with servers.zookeeper(directory, nodes=3) as zk:
        ... zk.address ...; zk.kill(0); zk.start(0)

A server is ended by its pid and start time, and dies with the thread that started it (so start one from the main
thread): a test that was killed leaves nothing behind.

More than 400 lines because every server of the tests stands here, each in some forty.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lab.nodes import Node, ServerFailed, free_ports

PACKAGES = Path(__file__).with_name("server-packages")


def packages(name: str) -> tuple[str, ...]:
    """The Debian packages that server needs."""
    return _row(name)[1]


def probe(name: str) -> str:
    """The file that shows that it is installed."""
    return _row(name)[0]


def obstacle(name: str) -> str | None:
    """Why that server cannot be started here; None when it can."""
    file, needed = _row(name)
    if Path(file).exists():
        return None
    return f"{name} is not installed: apt-get install {' '.join(needed)}"


def must_be_installed(name: str) -> None:
    """Raises ServerFailed with what to install."""
    reason = obstacle(name)
    if reason is not None:
        raise ServerFailed(reason)


def _row(name: str) -> tuple[str, tuple[str, ...]]:
    rows = [line.split() for line in PACKAGES.read_text().splitlines() if not line.startswith("#")]
    for known, file, *needed in rows:
        if known == name:
            return file, tuple(needed)
    raise ServerFailed(f"there is no server {name}; there is {', '.join(row[0] for row in rows)}")


# The last two are for TLS: the package's own list leaves them out.
ZOOKEEPER_CLASSES = ":".join(
    ["/etc/zookeeper/conf", *(f"/usr/share/java/{name}.jar" for name in ("zookeeper", "netty-codec", "netty-resolver"))]
)


class Certified(NamedTuple):
    """A certificate for 127.0.0.1 with its key, and the authority that has signed it and those of the clients."""

    ca: Path
    cert: Path
    key: Path


class Server:
    """A running server of one or more nodes."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, separated by commas when there are several nodes."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def port(self) -> int:
        return self.nodes[0].port

    def start(self, i: int | None = None, *, wait: bool = True) -> None:
        chosen = self._chosen(i)
        for node in chosen:
            node.begin()
        for node in chosen if wait else ():
            node.wait()

    def stop(self, i: int | None = None) -> None:
        self._end(i, signal.SIGTERM)

    def kill(self, i: int | None = None) -> None:
        self._end(i, signal.SIGKILL)

    def freeze(self, i: int | None = None) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        for node in self._chosen(i):
            node.send(signal.SIGSTOP)

    def thaw(self, i: int | None = None) -> None:
        for node in self._chosen(i):
            node.send(signal.SIGCONT)

    def leader(self) -> int:
        """Which node of a ZooKeeper ensemble leads."""
        for i, node in enumerate(self.nodes):
            if "Mode: leader" in _four_letters(node.port, b"srvr"):
                return i
        raise ServerFailed("no node leads")

    def _chosen(self, i: int | None) -> list[Node]:
        return self.nodes if i is None else [self.nodes[i]]

    def _end(self, i: int | None, number: signal.Signals) -> None:
        for node in self._chosen(i):
            node.end(number)


@contextlib.contextmanager
def zookeeper(directory: Path, nodes: int = 1, tick_ms: int = 200, tls: Certified | None = None) -> Iterator[Server]:
    """ZooKeeper, alone or as an ensemble. Sessions may be as short as two ticks. With `tls` it wants a certificate."""
    ports = free_ports(3 * nodes)
    members = "".join(
        f"server.{i + 1}=127.0.0.1:{ports[nodes + i]}:{ports[2 * nodes + i]}\n"
        for i in range(nodes if nodes > 1 else 0)
    )
    made = []
    for i in range(nodes):
        home = _fresh(directory / f"zookeeper{i}")
        (home / "data").mkdir()
        (home / "data" / "myid").write_text(f"{i + 1}\n")
        (home / "zoo.cfg").write_text(
            f"tickTime={tick_ms}\ninitLimit={10_000 // tick_ms}\nsyncLimit={3_000 // tick_ms}\n"
            f"minSessionTimeout={2 * tick_ms}\nmaxSessionTimeout=60000\ndataDir={home}/data\n"
            "maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
            f"{_zookeeper_port(home, ports[i], tls)}{members}"
        )
        made.append(Node(home, ports[i], _java(home), _zookeeper_serves if tls is None else listens))
    with running(made) as server:
        yield server


def _zookeeper_port(home: Path, port: int, tls: Certified | None) -> str:
    if tls is None:
        return f"clientPort={port}\nclientPortAddress=127.0.0.1\n"
    (home / "own.pem").write_text(tls.key.read_text() + tls.cert.read_text())
    return (
        f"secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n"
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
        f"ssl.keyStore.location={home}/own.pem\nssl.keyStore.type=PEM\n"
        f"ssl.trustStore.location={tls.ca}\nssl.trustStore.type=PEM\n"
    )


def _java(home: Path) -> list[str]:
    """A small heap and a compiler that starts quickly: these servers live for seconds."""
    return [
        "java",
        "-Xms32m",
        "-Xmx96m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Dzookeeper.nio.numSelectorThreads=1",
        "-Dzookeeper.nio.numWorkerThreads=2",
        "-Dzookeeper.commitProcessor.numWorkerThreads=1",
        "-Dzookeeper.preAllocSize=64",
        f"-Dzookeeper.log.dir={home}",
        "-Dzookeeper.root.logger=WARN,CONSOLE",
        "-cp",
        ZOOKEEPER_CLASSES,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(home / "zoo.cfg"),
    ]


def _zookeeper_serves(port: int) -> bool:
    """It has a role: of three nodes one whose peer port was taken listens for ever and serves nobody."""
    told = _four_letters(port, b"srvr")
    return any(f"Mode: {mode}" in told for mode in ("leader", "follower", "standalone"))


@contextlib.contextmanager
def etcd(directory: Path, tls: Certified | None = None) -> Iterator[Server]:
    """With `tls` it wants a certificate of its clients."""
    client, peer = free_ports(2)
    home = _fresh(directory / "etcd")
    here, peers = f"http{'s' if tls else ''}://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    secured = (
        []
        if tls is None
        else [
            "--cert-file",
            str(tls.cert),
            "--key-file",
            str(tls.key),
            "--client-cert-auth",
            "--trusted-ca-file",
            str(tls.ca),
        ]
    )
    # A shorter election than the usual second: the shortest lease is one and a half of it.
    command = [
        "etcd",
        "--name",
        "only",
        "--data-dir",
        str(home / "data"),
        "--listen-client-urls",
        here,
        "--advertise-client-urls",
        here,
        "--listen-peer-urls",
        peers,
        "--initial-advertise-peer-urls",
        peers,
        "--initial-cluster",
        f"only={peers}",
        "--heartbeat-interval",
        "50",
        "--election-timeout",
        "500",
        "--log-level",
        "error",
        *secured,
    ]
    with running([Node(home, client, command, _etcd_serves if tls is None else listens)]) as server:
        yield server


def _etcd_serves(port: int) -> bool:
    return b'"true"' in _ask(port, b"GET /health HTTP/1.0\r\n\r\n")


@contextlib.contextmanager
def memcached(directory: Path, memory_mib: int = 64, tls: Certified | None = None, login: str = "") -> Iterator[Server]:
    """`login`: USER:PASSWORD, without which it then does nothing. With `tls` it wants a certificate of its clients."""
    (port,) = free_ports(1)
    home = _fresh(directory / "memcached")
    command = [
        "memcached",
        "-u",
        "root",
        "-l",
        "127.0.0.1",
        "-p",
        str(port),
        "-U",
        "0",
        "-m",
        str(memory_mib),
        "-c",
        "4096",
        "-t",
        "2",
    ]
    if tls is not None:
        command += ["-Z", "-o", f"ssl_chain_cert={tls.cert},ssl_key={tls.key},ssl_ca_cert={tls.ca},ssl_verify_mode=2"]
    if login:
        (home / "logins").write_text(f"{login}\n")
        command += ["-Y", str(home / "logins")]
    is_open = tls is None and not login
    node = Node(home, port, command, _memcached_serves if is_open else listens)
    with running([node]) as server:
        yield server


def _memcached_serves(port: int) -> bool:
    return b"VERSION" in _ask(port, b"version\r\nquit\r\n")


@contextlib.contextmanager
def nats(directory: Path, listen: str = "127.0.0.1") -> Iterator[Server]:
    """`listen` may be 0.0.0.0: it is then also reached at the other addresses of the network namespace it is in."""
    must_be_installed("nats")
    (port,) = free_ports(1)
    with running([nats_node(_fresh(directory / "nats"), port, "-a", listen, "-p", str(port))]) as server:
        yield server


def nats_node(directory: Path, port: int, *options: str) -> Node:
    return Node(directory, port, ["nats-server", *options], _nats_serves)


def _nats_serves(port: int) -> bool:
    return _ask(port, b"", enough=4) == b"INFO"


RABBITMQ_USER = "rabbitmq"
RABBITMQ_GUEST = {"guest": ("guest", ".*")}


class RabbitmqNode(Node):
    """RabbitMQ and the name server of its language, which it needs and would leave behind: here it is a child too."""

    def __init__(self, home: Path | None = None, port: int = 0) -> None:
        """In a temporary directory where none is given: another user, as whom the broker runs, may not enter the
        caller's."""
        free, spoken, names = free_ports(3)
        port = port or free
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="droveway-rabbitmq-"))
        self._user = user = RABBITMQ_USER if os.geteuid() == 0 else ""
        environment = {
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"droveway-{port}@localhost",
            "RABBITMQ_DIST_PORT": str(spoken),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(home),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "detached": "1",  # this makes the script become the broker, with its pid
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false "
            "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        super().__init__(home, port, [probe("rabbitmq")], self._serves, user, environment)
        self._names = Node(home, names, ["epmd"], listens, user, environment)
        self._own(home)
        self.configure()

    def _own(self, path: Path) -> Path:
        if self._user:
            shutil.chown(path, self._user, self._user)
        return path

    def keep(self, path: Path) -> Path:
        """A copy of that file which the broker may read."""
        return self._own(Path(shutil.copy(path, self.directory / f"kept-{path.name}")))

    def configure(
        self, settings: str = "", users: Mapping[str, tuple[str, str]] = RABBITMQ_GUEST, *, secure: bool = False
    ) -> None:
        """For the next start. Each user has a password and a pattern of what it may configure, write and read; one
        whose pattern is empty may not enter the virtual host."""
        kind = "listeners.tcp = none\nlisteners.ssl.1" if secure else "listeners.tcp.1"
        self._is_secure = secure
        (self.directory / "rabbitmq.conf").write_text(
            f"{kind} = 127.0.0.1:{self.port}\nload_definitions = {self.directory}/definitions.json\n"
            f"log.console.level = warning\n{settings}\n"
        )
        self.define(
            {name: password for name, (password, _) in users.items()},
            {name: (allowed,) * 3 for name, (_, allowed) in users.items() if allowed},
        )

    def define(
        self,
        passwords: Mapping[str, str],
        permissions: Mapping[str, tuple[str, ...]],
        topics: Mapping[str, tuple[str, str, str]] | None = None,
    ) -> None:
        """For the next start: who may configure, write and read what; and, of an exchange, which routing keys."""
        definitions = {
            "users": [{"name": name, "password": password, "tags": ""} for name, password in passwords.items()],
            "vhosts": [{"name": "/"}],
            "permissions": [
                {"user": name, "vhost": "/", **dict(zip(("configure", "write", "read"), of, strict=True))}
                for name, of in permissions.items()
            ],
            "topic_permissions": [
                {"user": name, "vhost": "/", "exchange": exchange, "write": write, "read": read}
                for name, (exchange, write, read) in (topics or {}).items()
            ],
        }
        kept = self.directory / "definitions.json"
        kept.touch(0o600)
        self._own(kept).write_text(json.dumps(definitions))

    def _serves(self, port: int) -> bool:
        """Its first frame; with TLS, that it lets itself be connected to: it does so last."""
        greeting = b"AMQP\x00\x00\x09\x01"
        return listens(port) if self._is_secure else _ask(port, greeting, enough=3) == b"\x01\x00\x00"

    def begin(self) -> None:
        self._names.begin()
        self._names.wait()
        super().begin()

    def stays(self, environment: Mapping[str, str]) -> None:
        super().stays(environment)
        self._names.stays(environment)

    def reap(self) -> None:
        super().reap()
        self._names.reap()

    def end(self, number: signal.Signals) -> None:
        super().end(number)
        self._names.end(signal.SIGKILL)


@contextlib.contextmanager
def rabbitmq(settings: str = "", users: Mapping[str, tuple[str, str]] | None = None) -> Iterator[Server]:
    """`settings` are lines of its own configuration file; without `users` there is guest, with password guest."""
    must_be_installed("rabbitmq")
    node = RabbitmqNode()
    node.configure(settings, users or RABBITMQ_GUEST)
    with running([node]) as server:
        yield server


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


@contextlib.contextmanager
def running(nodes: list[Node], kind: Any = Server) -> Iterator[Any]:
    """As long as the block lasts; what is left of it is removed behind it."""
    server = kind(nodes)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        for node in nodes:
            shutil.rmtree(node.directory, ignore_errors=True)


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _four_letters(port: int, word: bytes) -> str:
    return _ask(port, word).decode(errors="replace")


def _ask(port: int, question: bytes, enough: int = 1 << 16) -> bytes:
    """What a server answers until it closes or has said enough; empty when it does not answer."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as asked:
            asked.sendall(question)
            while len(answer) < enough and (more := asked.recv(enough - len(answer))):
                answer += more
    except OSError:
        pass
    return answer
