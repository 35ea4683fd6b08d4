"""What the rows are measured on: a real control over a real broker and PostgreSQL, and processes full of hosts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from benchmarks.claims import cpu_seconds
from benchmarks.fleet_rows import hosts_process
from benchmarks.fleet_rows.hosts_process import SHARED_BY, Plan
from benchmarks.liveness_rows.rig import end, start, tail, wait_for
from lab import postgresql, servers
from lab.client import Client
from lab.compute import Compute

CLONE = Path(__file__).resolve().parents[2]
READY_S, ANSWER_S = 120.0, 60.0
LOOK_S = 0.1
AGENTS = 2  # processes

# A host is usable when a guest may be put there: its service is up, and it has told what it has.
USABLE = """select count(*) from hosts h join services s on s.host = h.name and s.binary = 'nova-compute'
 where s.is_up and not s.disabled and not s.forced_down and h.hypervisor_up and h.resources is not null"""
ALIVE = "select count(*) from services where services.binary = 'nova-compute' and is_up and state = 'alive'"
# Each transaction that writes leaves the number of the mark of its writer.
WRITES = "select coalesce(sum(number), 0) from writers"
ROWS_WRITTEN = """select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_user_tables"""
SIZE_BYTES = "select pg_total_relation_size('hosts') + pg_total_relation_size('services')"
COMMITS = "select xact_commit from pg_stat_database where datname = current_database()"


class Control:
    """`droveway control` in a directory of its own."""

    def __init__(self, home: Path, database: str, bus: str, broker_port: int, command: Sequence[str] = ()) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.said = home, home / "said"
        (self.port,) = servers.free_ports(1)
        scheme = {"nats": "nats", "rabbitmq": "amqp"}.get(bus, "")
        over = f'[{bus}]\nservers = ["{scheme}://127.0.0.1:{broker_port}"]\n' if scheme else ""
        (home / "droveway.toml").write_text(
            f'state_path = "{home}"\nlog_level = "warning"\ndatabase = "{database}"\nbus = "{bus}"\n{over}\n'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
        )
        run = [*(command or (sys.executable, "-m", "droveway.main")), "control", "--config", f"{home}/droveway.toml"]
        self.process = start(run, self.said)
        wait_for(
            lambda: self.process.poll() is not None or Client(self.port).answers(),
            READY_S,
            lambda: f"control does not answer: {tail(self.said)}",
        )
        if self.process.poll() is not None:
            raise RuntimeError(f"control has ended: {tail(self.said)}")

    @property
    def pid(self) -> int:
        return self.process.pid

    def compute(self) -> Compute:
        return Compute(self.port, self.home / "clouds.yaml")


def image_of(port: int, home: Path) -> str:
    """The id of an image: a mebibyte of nothing."""
    file, client = home / "image.raw", Client(port)
    file.write_bytes(bytes(1 << 20))
    client.log_in(home / "clouds.yaml")
    if not client.has_image("tiny"):
        client.upload("tiny", file)
    return Compute(port, home / "clouds.yaml").image_id()


class Hosts:
    """All hosts, over a few processes."""

    def __init__(self, bus: str, port: int, count: int, home: Path) -> None:
        self.count_of_hosts, self.said = count, home / "hosts-said"
        self.processes: list[subprocess.Popen[str]] = []
        share = count // AGENTS // SHARED_BY * SHARED_BY
        firsts = [number * share for number in range(AGENTS)]
        for first in firsts:
            size = share if first != firsts[-1] else count - first
            plan = msgspec.json.encode(Plan(bus, port, first, size)).decode()
            with self.said.open("ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", hosts_process.__name__, plan],
                        cwd=CLONE,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                )
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready", tail(self.said)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def tell(self, line: str, some: slice = slice(None)) -> list[Any]:
        """To each of these processes; their answers."""
        for process in self.processes[some]:
            assert process.stdin is not None and process.poll() is None, f"hosts have ended: {tail(self.said)}"
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answers = []
        for process in self.processes[some]:
            assert process.stdout is not None
            answers.append(msgspec.json.decode(process.stdout.readline()))
        return answers

    def counted(self) -> dict[str, float]:
        rows = self.tell("count")
        return {
            key: max(row[key] for row in rows) if key == "late_ms" else sum(row[key] for row in rows) for key in rows[0]
        }

    def guests(self) -> dict[str, dict[str, int]]:
        """Of each host that has any: the guests that run there, and how often each was booted."""
        return {host: guests for one in self.tell("guests") for host, guests in one.items()}

    def end(self) -> None:
        for process in self.processes:
            end(process)


class Cloud:
    """The whole, and what each part of it has used."""

    def __init__(
        self, broker: servers.Server, pg: postgresql.Postgresql, url: str, control: Control, hosts: Hosts, bus: str
    ) -> None:
        self.broker, self.pg, self.url, self.control, self.hosts, self.bus = broker, pg, url, control, hosts, bus
        self._database = psycopg.connect(url, autocommit=True)

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values or None).fetchall()

    def number(self, query: str, *values: Any) -> int:
        return int(self.ask(query, *values)[0][0])

    @property
    def count_of_hosts(self) -> int:
        return self.hosts.count_of_hosts

    def guests(self) -> dict[str, dict[str, int]]:
        return self.hosts.guests()

    def wait_for(self, query: str, least: int, timeout_s: float) -> None:
        self.wait(lambda: self.number(query) >= least, timeout_s, f"{query} stays below {least}")

    def usable(self) -> int:
        return self.number(USABLE)

    def writes(self) -> int:
        """Transactions that have written so far: of the program, not of who looks."""
        return self.number(WRITES)

    def written_most(self) -> str:
        """Which tables, all told."""
        rows = self.ask("select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables order by 2 desc")
        return ", ".join(f"{name} {count}" for name, count in rows[:4])

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each part so far."""
        return {
            "control": cpu_seconds([self.control.pid]),
            "postgresql": cpu_seconds(tree(self.pg.nodes[0].pid)),
            "broker": cpu_seconds(tree(self.broker.nodes[0].pid)),
            "agents": cpu_seconds(self.hosts.pids),
        }

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str, pause_s: float = LOOK_S) -> float:
        """How long it took."""
        began_s = time.monotonic()
        said = (self.control.said, self.hosts.said)
        wait_for(condition, timeout_s, lambda: f"{what}; said: {' | '.join(map(tail, said))}", pause_s)
        return time.monotonic() - began_s

    def close(self) -> None:
        self._database.close()


def used(before: dict[str, float], after: dict[str, float], share: float, unit: str, digits: int = 2) -> str:
    """`control 0.21, postgresql 0.03, …`: what was used between the two, divided by `share`."""
    parts = (f"{name} {(after[name] - before[name]) / share:.{digits}f}" for name in after)
    return ", ".join(parts) + f" {unit}"


def tree(pid: int) -> list[int]:
    """A process and those it has started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


@contextlib.contextmanager
def broker_of(bus: str, home: Path) -> Iterator[servers.Server]:
    with servers.nats(home / "broker") if bus == "nats" else servers.rabbitmq() as broker:
        yield broker


@contextlib.contextmanager
def cloud(home: Path, bus: str, hosts: int, command: Sequence[str] = ()) -> Iterator[Cloud]:
    """Everything runs; the hosts wait for `go`."""
    home.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        pg = stack.enter_context(postgresql.server(is_safe=True))
        broker = stack.enter_context(broker_of(bus, home))
        url = pg.create("fleet")
        control = Control(home / "control", url, bus, broker.port, command)
        stack.callback(end, control.process)
        many = Hosts(bus, broker.port, hosts, home)
        stack.callback(many.end)
        made = Cloud(broker, pg, url, control, many, bus)
        stack.callback(made.close)
        yield made
