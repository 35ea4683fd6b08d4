"""A process that is many hosts: their hearts and the least of their agents, over a real NATS broker.

Twenty hosts share a connection, as machines behind one leaf of a broker would. Each host beats once a second in a phase
of its own, says hello until a control lets it in and when it is asked to, answers pings, and reports once a minute. It
obeys lines on stdin: `die N S` (N hosts, each at a moment of its own within S seconds), `drop P` (of each beat, before
the bus), `count`; it tells on stdout.
"""

from __future__ import annotations

import heapq
import os
import random
import selectors
import socket
import struct
import sys
import time

import msgspec

from droveway.agents.heart import heart_bytes
from droveway.domain.model import Resources
from droveway.drivers.bus.broker_messages import (
    Answered,
    CommandMessage,
    HelloFrom,
    Probe,
    ProbeReply,
    decode_for_agent,
    encode,
)
from droveway.ports.bus import Hello, Report, Welcome
from droveway.ports.replies import PingResult

SHARED_BY = 20
SLOTS = 50
SLOT_S = 1 / SLOTS
HELLO_AGAIN_S, RECONNECT_S, REPORT_S = 2.0, 0.5, 60.0
DAY_US = 86_400 * 1_000_000
RESOURCES = Resources("QEMU", 7002022, "h", 8, 65536, 60000, 500, 400)


class Plan(msgspec.Struct, frozen=True):
    """What a crowd is; one JSON argument. Half of the hosts' clocks are `skew_us` ahead, half behind."""

    port: int
    first: int
    count: int
    services: int = 10
    skew_us: int = DAY_US
    reports: bool = True
    seed: int = 1


def name_of(number: int) -> str:
    return f"compute-{number:05d}"


class Host:
    def __init__(self, number: int, plan: Plan, connection: Connection) -> None:
        self.name, self.boot_id, self.connection = name_of(number), f"boot-{number}", connection
        binaries = ("nova-compute", *(f"binary-{one}" for one in range(1, plan.services)))
        self.front = heart_bytes.front(self.name, self.boot_id, binaries)
        self.tail = struct.Struct(f"<QQQ{plan.services}I{plan.services}H")
        self.head = b"PUB droveway.beat.%b %d\r\n" % (self.name.encode(), len(self.front) + self.tail.size)
        self.late = (3,) * plan.services
        self.counter, self.skew_us = 0, plan.skew_us if number % 2 else -plan.skew_us
        self.dies_s, self.is_dead, self.is_in = float("inf"), False, False
        self.reports = 0

    def beat(self, wall_us: int) -> bytes:
        self.counter += 1
        progress = (self.counter,) * len(self.late)
        numbers = self.tail.pack(1, self.counter, wall_us + self.skew_us, *progress, *self.late)
        return b"".join((self.head, self.front, numbers, b"\r\n"))

    def hello(self, control: str = "") -> bytes:
        said = HelloFrom(f"agent-{self.name}", Hello(self.name, self.boot_id, "the crowd"))
        return publish(f"droveway.hello.{self.name}" + (f".{control}" if control else ""), encode(said))

    def report(self) -> bytes:
        self.reports += 1
        said = Report(self.name, self.boot_id, self.reports, True, "", RESOURCES, (), True)
        return publish(f"droveway.notice.report.{self.name}.agent-{self.name}", encode(said))


class Connection:
    """To the broker, for SHARED_BY hosts; made again when it ends."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.hosts: dict[bytes, Host] = {}
        self.socket: socket.socket | None = None
        self.unread = b""

    def connect(self) -> None:
        sock = socket.socket()
        try:
            sock.settimeout(2.0)
            sock.connect(("127.0.0.1", self.crowd.plan.port))
            sock.recv(1 << 16)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            sock.sendall(
                b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB droveway.ask 0\r\n'
                + b"".join(
                    b"SUB droveway.agent.%b.* %d\r\nSUB droveway.ask.%b %d\r\n" % (name, 2 * at + 1, name, 2 * at + 2)
                    for at, name in enumerate(self.hosts)
                )
            )
        except OSError:
            sock.close()
            self.crowd.after(RECONNECT_S * random.uniform(0.5, 1.0), self.connect)
            return
        sock.setblocking(False)
        self.socket, self.unread = sock, b""
        self.crowd.selector.register(sock, selectors.EVENT_READ, self)
        for host in self.hosts.values():
            host.is_in = False
        self.greet()

    def greet(self) -> None:
        """Until all are let in."""
        waiting = [host for host in self.hosts.values() if not host.is_in and not host.is_dead]
        if waiting and self.socket is not None:
            self.send(b"".join(host.hello() for host in waiting))
            self.crowd.after(HELLO_AGAIN_S * random.uniform(0.5, 1.0), self.greet)

    def send(self, data: bytes) -> None:
        if self.socket is None:
            return
        try:
            sent = self.socket.send(data)
            if sent < len(data):
                self.crowd.cut_short += 1
                self.end()  # half a message cannot be taken back
        except BlockingIOError:
            self.crowd.cut_short += 1
        except OSError:
            self.end()

    def end(self) -> None:
        if self.socket is not None:
            self.crowd.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None
            self.crowd.after(RECONNECT_S * random.uniform(0.5, 1.0), self.connect)

    def read(self) -> None:
        assert self.socket is not None, "it is registered while it is open"
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        self.unread += data
        while (eol := self.unread.find(b"\r\n")) >= 0:
            line, begin = self.unread[:eol], eol + 2
            if line.startswith(b"MSG "):
                _, subject, _, *reply, size = line.split(b" ")
                end = begin + int(size)
                if len(self.unread) < end + 2:
                    return
                self.take(subject, reply[0] if reply else b"", self.unread[begin:end])
                begin = end + 2
            elif line == b"PING":
                self.send(b"PONG\r\n")
            self.unread = self.unread[begin:]

    def take(self, subject: bytes, reply: bytes, payload: bytes) -> None:
        _, kind, *rest = subject.split(b".")
        if kind == b"ask":
            asked = [self.hosts[rest[0]]] if rest else list(self.hosts.values())
            control = payload.decode()
            greeting = b"".join(host.hello(control) for host in asked if not host.is_dead)
            self.crowd.after(random.uniform(0, 0.25), lambda: self.send(greeting))
            return
        host = self.hosts[rest[0]]
        if host.is_dead:
            return
        message = decode_for_agent(payload)
        if isinstance(message, CommandMessage):
            self.send(publish(reply.decode(), encode(Answered(PingResult(host.boot_id)))))
        elif isinstance(message, Probe):
            self.send(publish(reply.decode(), encode(ProbeReply())))
        elif isinstance(message.welcome, Welcome) and not host.is_in:
            host.is_in = True
            if self.crowd.plan.reports and not host.reports:
                self.crowd.report(host)


class Crowd:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.selector = selectors.DefaultSelector()
        self.beats = self.dropped = self.cut_short = 0
        self.drop = self.late_s = 0.0
        self._due: list[tuple[float, int, object]] = []
        self._number = 0
        self.slots: list[list[Host]] = [[] for _ in range(SLOTS)]
        self.hosts: list[Host] = []
        for at in range(0, plan.count, SHARED_BY):
            connection = Connection(self)
            for number in range(plan.first + at, plan.first + min(at + SHARED_BY, plan.count)):
                host = Host(number, plan, connection)
                connection.hosts[host.name.encode()] = host
                self.hosts.append(host)
                random.choice(self.slots).append(host)
            self.after(at / 4000, connection.connect)

    def after(self, seconds: float, call: object) -> None:
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._number, call))

    def report(self, host: Host) -> None:
        """As an agent does: when it is let in, and once a minute. Real ones were not all started at once."""
        if not host.is_dead:
            host.connection.send(host.report())
            pause_s = REPORT_S if host.reports > 1 else random.uniform(0, REPORT_S)
            self.after(pause_s, lambda: self.report(host))

    def run(self) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        slot, slot_s = 0, time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s - slot_s > 1.0:  # it was stopped: everybody beats at once, once
                slot_s = now_s - 1.0
            while slot_s <= now_s:
                self.late_s = max(self.late_s, now_s - slot_s)
                self.beat(self.slots[slot % SLOTS], now_s)
                slot, slot_s = slot + 1, slot_s + SLOT_S
            while self._due and self._due[0][0] <= now_s:
                call = heapq.heappop(self._due)[2]
                assert callable(call)
                call()
            next_s = min(slot_s, self._due[0][0]) if self._due else slot_s
            for key, _ in self.selector.select(max(0.0, next_s - time.monotonic())):
                if key.data is None:
                    self.handle(os.read(0, 4096).decode())
                elif key.data.socket is key.fileobj:
                    key.data.read()

    def beat(self, hosts: list[Host], now_s: float) -> None:
        wall_us = time.time_ns() // 1000
        for host in hosts:
            if host.is_dead:
                continue
            if now_s >= host.dies_s:  # its last second began before this beat
                continue
            if self.drop and random.random() < self.drop:
                host.counter += 1
                self.dropped += 1
                continue
            self.beats += 1
            host.connection.send(host.beat(wall_us))

    def handle(self, text: str) -> None:
        if not text:
            sys.exit(0)  # whoever started it is gone
        for line in text.splitlines():
            word, *numbers = line.split()
            if word == "die":
                self.die(int(numbers[0]), float(numbers[1]))
            elif word == "drop":
                self.drop = float(numbers[0])
            elif word == "count":
                counted = (self.beats, self.dropped, self.cut_short, sum(host.is_in for host in self.hosts))
                tell("counted", *counted, f"{self.late_s:.3f}")
                self.late_s = 0.0

    def die(self, count: int, within_s: float) -> None:
        alive = [host for host in self.hosts if host.dies_s == float("inf")]
        for host in random.sample(alive, count):
            in_s = random.uniform(0, within_s)
            host.dies_s = time.monotonic() + in_s
            tell("dies", host.name, f"{host.dies_s:.6f}")
            self.after(in_s, lambda host=host: setattr(host, "is_dead", True))


def publish(subject: str, payload: bytes) -> bytes:
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)


def tell(*words: object) -> None:
    print(*words, flush=True)


def main() -> None:
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    random.seed(plan.seed)
    Crowd(plan).run()


if __name__ == "__main__":
    main()
