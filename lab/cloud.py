"""`./dev up` and `./dev down`: the lab hosts and the program together, as one cloud in one directory.

The hosts, the program, what libvirt must learn of QEMU and the guest image are all begun before any is waited for.
A second `up` finishes what the first had not done, so it may be interrupted anywhere.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from lab import files, image, listen, nodes, processes, registry
from lab.backing import BUSES, STORAGES, STORES, Backing, BackingFailed, Choice
from lab.client import ApiFailed, Client
from lab.hosts import Lab, LabFailed, obstacle
from lab.network import NetworkFailed
from lab.quickstart import CREATE, KEY, Quickstart, key_path
from lab.storage import Storage
from lab.task import Task

CLONE = Path(__file__).resolve().parent.parent
FIRST_PORT = 8774
PORTS_TRIED = 200
SOCKET_PATH_MAX = 107
ANSWERS_S = 30.0
ENDS_S = 30.0
IMAGE_NICENESS = 15
LOG_IN = "           ./dev ssh g1                # or ./dev ssh g1 uptime; a session lives through the next command\n"


class CloudFailed(Exception):
    """The cloud could not be started or ended; the message says what to do."""


FAILURES = (
    ApiFailed,
    BackingFailed,
    CloudFailed,
    LabFailed,
    NetworkFailed,
    image.ImageFailed,
    nodes.ServerFailed,
    registry.NotEnded,
)


class Cloud:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.lab = Lab(home / "lab", cache=home / "cache")
        self.choice = self._kept_choice()
        self.backing = Backing(home, self.choice)
        self.storage = Storage(home, self.lab, self.choice.storage)
        self.log = home / "droveway.log"
        self.pid = home / "droveway.pid"
        self.settings: dict[str, object] = {"report_interval": 1.0, "service_down_time": 3.0}  # at the file's top
        self.instances = self.storage.instances
        self.simulated_hosts = 2  # where they are simulated
        self.of_simulated: dict[str, object] = {}  # keys of each of those
        self.prefix: tuple[str, ...] = ()  # what the program's command lines on a real host begin with
        # A second cloud of the same clone keeps its credentials to itself.
        self.clouds_yaml = (CLONE if home == CLONE / ".droveway" else home) / "clouds.yaml"
        self._mark = f"DROVEWAY_HOME={home}"  # carried by the program and its children, by nobody else
        self._program: subprocess.Popen[bytes] | None = None  # when it was this process that started it
        self._reserved: list[socket.socket] = []  # ports chosen; the program that is started is given them

    # -- what it stands on ----------------------------------------------------------------------------------------
    @property
    def config(self) -> Path:
        """The program's file; control's own where the roles are apart."""
        return self.home / ("control.toml" if self.choice.is_apart else "droveway.toml")

    @property
    def configs(self) -> list[Path]:
        """Those of all roles."""
        if not self.choice.is_apart:
            return [self.config]
        return [self.config, self.home / "api.toml", *sorted(self.home.glob("agent-*.toml"))]

    def _kept_choice(self) -> Choice:
        with suppress(OSError, ValueError, TypeError):
            return Choice(*(self.home / "choice").read_text().split())
        return Choice()

    def choose(self, bus: str | None, store: str | None, storage: str | None = None) -> None:
        """What the cloud is to stand on; what is not said stays as it was. Raises CloudFailed."""
        kept = self.choice
        wanted = Choice(bus or kept.bus, store or kept.store, storage or kept.storage)
        if self.config.exists() and wanted != self.choice:
            raise CloudFailed(
                f"the cloud in {short(self.home)} was made with {self.choice}, and what it stores is there: start it "
                f"with those, or give another one a directory of its own with DROVEWAY_DIR"
            )
        self.choice, self.backing = wanted, Backing(self.home, wanted)
        self.storage = Storage(self.home, self.lab, wanted.storage)
        self.instances = self.storage.instances

    # -- up -------------------------------------------------------------------------------------------------------
    def up(self, simulated: bool, foreground: bool, quiet: bool = False) -> None:
        began = time.monotonic()
        if len(str(self.home / "consoles.sock")) > SOCKET_PATH_MAX:
            raise CloudFailed(
                f"{self.home} is too long a path for a unix socket: set DROVEWAY_DIR to a shorter directory"
            )
        self.home.mkdir(parents=True, exist_ok=True)
        with self._alone():
            was_up = self.is_up
            simulated = self.is_simulated if was_up else self._must_simulate(simulated)
            built = Task(self._build_image)
            if not simulated:
                self.lab.up(wait=False)
                self.storage.start()
            (self.home / "choice").write_text(" ".join(self.choice) + "\n")
            self.backing.start()
            port = self.port if was_up else self._choose_port()
            if not simulated and not (was_up and self.backing.has_gate):
                broker = [self.backing.port(self.choice.bus)] if self.choice.is_apart else []
                self.backing.open_gate(self.lab.control, self.lab.address, port, *broker)
            if not was_up:
                self._start(simulated, foreground, port)
            warmed = None if simulated else Task(self._warm)
            self.backing.wait()
            self.storage.wait()
            port = self._wait_until_it_answers()
            client = Client(port)
            client.log_in(self.clouds_yaml)
            Quickstart(client, self.home).make()
            self._upload(client, built, simulated)
            if warmed is not None:
                warmed.result()
            self._wait_until_usable(client, self.simulated_hosts if simulated else len(self.lab.hosts))
        took = "already up" if was_up else f"up in {time.monotonic() - began:.1f} s"
        if not quiet:
            self._tell(port, simulated, took, foreground and self._program is not None)
        if foreground and self._program is not None:
            self._watch(self._program)

    @property
    def port(self) -> int:
        """Where the API listens, once the cloud is up."""
        return int((self.home / "port").read_text())

    def _must_simulate(self, wanted: bool) -> bool:
        """Says so in one line when real hosts cannot be had."""
        reason = None if wanted else obstacle()
        if reason is None and not wanted and find_spec("libvirt") is None:
            reason = "libvirt-python is not in the virtual environment"
        if self.choice.storage != "dir" and (wanted or reason is not None):
            raise CloudFailed(f"--storage {self.choice.storage} needs real hosts: {reason or 'leave out --simulated'}")
        if reason is not None:
            print(f"no real hosts here ({reason}): starting with simulated ones", flush=True)
        return wanted or reason is not None

    @property
    def is_up(self) -> bool:
        """Whether its program runs."""
        return processes.recorded(self.pid) is not None

    @property
    def is_simulated(self) -> bool:
        return any('hypervisor = "simulated"' in one.read_text() for one in self.configs)

    def _start(self, simulated: bool, foreground: bool, port: int) -> None:
        self.end_program()  # what an interrupted start may have left
        for old in self.home.glob("agent-*.toml"):
            old.unlink()
        for path, text in files.files(self, port, simulated).items():
            unfinished = path.with_suffix(".new")
            unfinished.touch(0o600)
            unfinished.write_text(text)
            unfinished.rename(path)
        name, _, value = self._mark.partition("=")
        told = [word for path in self.configs for word in ("--config", str(path))]
        command = [sys.executable, "-m", "droveway.main", "all", *told]
        with self.log.open("ab") as log, processes.uninterrupted():
            self._program = subprocess.Popen(
                command,
                cwd="/",
                env={**os.environ, name: value},
                start_new_session=True,
                pass_fds=[chosen.fileno() for chosen in self._reserved],
                stdin=subprocess.DEVNULL,
                stdout=None if foreground else log,
                stderr=None if foreground else log,
            )
            processes.record(self.pid, self._program.pid)

    def agents_port(self) -> int:
        """Where hosts that join renew their certificates."""
        return self._choose_port("agents-port", FIRST_PORT + PORTS_TRIED)

    def _choose_port(self, name: str = "port", first: int = FIRST_PORT) -> int:
        """The one it had before, if that is still free: clients keep what they know."""
        kept = self.home / name
        ports = list(range(first, first + PORTS_TRIED))
        with suppress(OSError, ValueError):
            ports.insert(0, int(kept.read_text()))
        for port in ports:
            if self._reserve(port):
                kept.write_text(f"{port}\n")
                return port
        raise CloudFailed(f"no port is free on 127.0.0.1 from {first} to {first + PORTS_TRIED - 1}")

    def _reserve(self, port: int) -> bool:
        """Whether it is free, and no other cloud has chosen it: from here on this one has, as long as its program
        lives. The API and the agents' listener may be away meanwhile, when they are started again."""
        chosen = nodes.claim(f"port-{port}")
        if chosen is None:
            return False
        if not nodes.is_free(port):
            chosen.close()
            return False
        self._reserved.append(chosen)
        return True

    def release_ports(self) -> None:
        """The program, which has them too, runs or will not."""
        while self._reserved:
            self._reserved.pop().close()

    def _build_image(self) -> Path:
        """Leaves the processors to the program, which is waited for first."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IMAGE_NICENESS)
        return image.image(self.home / "cache")

    def _warm(self) -> None:
        self.lab.wait()
        self.lab.warm()

    def _wait_until_it_answers(self) -> int:
        port = self.port
        client = Client(port)

        def answers() -> bool:  # whatever else has taken the port has not written this
            return self.clouds_yaml.exists() and client.answers()

        # It may end before it answers: then its last words say why.
        processes.wait_for(lambda: answers() or processes.recorded(self.pid) is None, ANSWERS_S)
        if not answers():
            words = self.log.read_text(errors="replace").strip().split("\n")[-3:] if self.log.exists() else []
            raise CloudFailed(f"the API did not answer on port {port}; {self.log} ends with: {' / '.join(words)}")
        return port

    def _wait_until_usable(self, client: Client, hosts: int) -> None:
        """Until the scheduler may use every host."""
        backends = min(hosts, self.storage.backends) or hosts
        if not processes.wait_for(lambda: client.usable_backends() >= backends, ANSWERS_S):
            raise CloudFailed(
                f"{client.usable_backends()} of {backends} backends of volumes are there; {self.log} says why"
            )
        if not processes.wait_for(lambda: client.usable_hosts() >= hosts, ANSWERS_S):
            raise CloudFailed(
                f"{client.usable_hosts()} of {hosts} hosts are usable after {ANSWERS_S:.0f} s; {self.log} says why"
            )
        client.refresh_scheduler()

    def _upload(self, client: Client, built: Task, simulated: bool) -> None:
        path = built.result(may_fail=simulated or client.has_image("tiny"))
        if client.has_image("tiny", None if simulated else path):
            return
        if path is None:  # simulated hosts do not look at the bytes
            path = self.home / "cache" / "blank.raw"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(2**20))
        client.upload("tiny", path)

    def _tell(self, port: int, simulated: bool, took: str, foreground: bool) -> None:
        if simulated:
            hosts = "sim1, sim2: simulated, in one process"
        else:
            each = ", ".join(f"{host.name} {host.address}" for host in self.lab.hosts)
            hosts = f"{each}\n           namespaces dw-{self.lab.id}-*, each with its own libvirtd"
        print(
            f"droveway   {took}: http://127.0.0.1:{port}, admin's password in {short(self.clouds_yaml)}\n"
            f"hosts      {hosts}\n"
            f"{self._roles()}"
            f"{'' if simulated else f'volumes    {self.storage}{chr(10)}'}"
            f"made       image tiny (ticks once a second, and has an SSH server); flavors tiny, small, medium\n"
            f"           networks private and public, and a router; ssh and ping are let in to private\n"
            f"           key pair {KEY}: {short(key_path(self.home))}\n"
            f"kept       database, images, disks and droveway.log in {short(self.home)}\n"
            f"next       {CREATE}\n"
            f"{'' if simulated else LOG_IN}"
            f"           ./dev openstack server migrate --live-migration --wait g1\n"
            f"           ./dev openstack server migration list\n"
            f"           ./dev openstack console log show g1\n"
            f"the end    {'Ctrl-C' if foreground else './dev down'}",
            flush=True,
        )

    def _roles(self) -> str:
        if not self.choice.servers:
            return ""
        where = ", ".join(f"{name} on 127.0.0.1:{self.backing.port(name)}" for name in self.choice.servers)
        each = f"control, api and agents apart: {', '.join(path.name for path in self.configs)}\n           "
        return f"roles      {each if self.choice.is_apart else ''}{where}\n"

    def _watch(self, program: subprocess.Popen[bytes]) -> None:
        try:
            program.wait()
        except KeyboardInterrupt:
            print("\nending the program and the hosts", flush=True)
        finally:
            self.down()

    # -- down -----------------------------------------------------------------------------------------------------
    def down(self) -> None:
        """The program first, so that it does not take the end of its hosts for a failure."""
        if not self.home.exists():  # nothing was ever started here; hosts may be left of one whose directory is gone
            self.lab.down()
            return
        with self._alone():
            self.end_program()
            self.lab.end_guests()  # before that on which they write
            self.storage.end()
            self.backing.end()
            self.lab.down()

    def end_program(self) -> None:
        running = processes.recorded(self.pid)
        if running is not None:
            running.send(signal.SIGTERM)
            processes.wait_for(lambda: not running.is_alive(), ENDS_S)
        if not processes.end(lambda: processes.with_environment(self._mark), signal.SIGKILL, ENDS_S):
            raise CloudFailed(f"processes of the program outlived SIGKILL by {ENDS_S:.0f} s; see {self.log}")
        self.pid.unlink(missing_ok=True)
        if self._program is not None:
            self._program.wait(ENDS_S)
            self._program = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` of this cloud at a time: an `up` that is under way would start what a `down` has ended."""
        with (self.home / "up.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another up or down of {short(self.home)}", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                self.release_ports()


def home_of_this() -> Path:
    """Where the cloud of this clone is."""
    return Path(os.environ.get("DROVEWAY_DIR") or CLONE / ".droveway").resolve()


def short(path: Path) -> str:
    return str(path.relative_to(CLONE)) if path.is_relative_to(CLONE) else str(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up")
    up.add_argument("--foreground", action="store_true")
    up.add_argument("--simulated", action="store_true")
    up.add_argument("--bus", choices=BUSES)
    up.add_argument("--store", choices=STORES)
    up.add_argument("--storage", choices=STORAGES)
    verbs.add_parser("down")
    arguments = parser.parse_args()
    cloud = Cloud(home_of_this())
    try:
        listen()
        if arguments.verb == "up":
            cloud.choose(arguments.bus, arguments.store, arguments.storage)
            cloud.up(arguments.simulated, arguments.foreground)
        else:
            cloud.down()
    except FAILURES as failure:
        sys.exit(f"droveway: {failure}")
    except BrokenPipeError:  # whoever read what it says has left, and all is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit("droveway: interrupted; `./dev up` goes on from here, `./dev down` ends what runs")


if __name__ == "__main__":
    main()
