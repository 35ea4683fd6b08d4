"""A process that is many hosts: the program's own agents over the program's own bus, each with a simulated hypervisor.

Twenty hosts share a connection to the broker. Only three things differ from real hosts: a beat is made here and not by
a heart beside the agent, a fence is kept in memory and not forced to a disk, and a guest is an entry in a table. It
obeys lines on stdin, and answers each with one line of JSON on stdout:

    go         all hosts begin at once
    cut N      about N hosts, the first ones, lose their network: whole connections
    mend       they have it again
    count      what was sent and heard so far, and how late the beats were at worst since the last count
    guests     of each host the guests that run there, and how often each was booted
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import uvloop

from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import MemoryFences
from droveway.agents.heart import heart_bytes
from droveway.domain.model import GuestState
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.bus.broker_link import BrokerLink, OnMessage, Wire
from droveway.drivers.bus.broker_messages import word
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.driver import Fleet, SimulatedHypervisor

SHARED_BY = 20
SLOTS = 50  # of a second: in each of them a fiftieth of the hosts beat
BINARY = "nova-compute"
TAIL = struct.Struct("<QQQIH")


class Plan(msgspec.Struct, frozen=True):
    """What the process is; one JSON argument."""

    bus: str
    port: int
    first: int
    count: int


def name_of(number: int) -> str:
    return f"compute-{number:05d}"


class Counts(msgspec.Struct):
    beats: int = 0
    sent: int = 0
    sent_bytes: int = 0
    heard: int = 0
    heard_bytes: int = 0
    dropped: int = 0
    late_ms: float = 0.0


class Cable:
    """The network of one connection; and what goes through it."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.is_whole = asyncio.Event()

    async def whole(self) -> None:
        await self.is_whole.wait()

    def counting(self, on_message: OnMessage) -> OnMessage:
        counts = self.counts

        def heard(subject: bytes, reply: bytes, payload: bytes | None) -> None:
            counts.heard += 1
            counts.heard_bytes += len(subject) + len(reply) + len(payload or b"")
            on_message(subject, reply, payload)

        return heard

    def note(self, subject: str, payload: bytes, reply: str, was_sent: bool) -> bool:
        counts = self.counts
        if was_sent:
            counts.sent += 1
            counts.sent_bytes += len(subject) + len(reply) + len(payload)
        else:
            counts.dropped += 1
        return was_sent


class CabledNats(NatsLink):
    cable: Cable

    async def _connect(self, server: str) -> Any:
        await self.cable.whole()
        return await super()._connect(server)

    def subscribe(self, subject: str, on_message: OnMessage) -> int:
        return super().subscribe(subject, self.cable.counting(on_message))

    def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        return self.cable.note(subject, payload, reply, super().publish(subject, payload, reply))


class CabledRabbit(RabbitLink):
    cable: Cable

    async def _connect(self, server: str) -> Any:
        await self.cable.whole()
        return await super()._connect(server)

    def subscribe(self, subject: str, on_message: OnMessage) -> int:
        return super().subscribe(subject, self.cable.counting(on_message))

    def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        return self.cable.note(subject, payload, reply, super().publish(subject, payload, reply))


def link_of(plan: Plan, cable: Cable) -> CabledNats | CabledRabbit:
    link: CabledNats | CabledRabbit
    if plan.bus == "nats":
        link = CabledNats(NatsSettings(servers=(f"nats://127.0.0.1:{plan.port}",)), SystemChance())
    else:
        link = CabledRabbit(RabbitSettings(servers=(f"amqp://127.0.0.1:{plan.port}",)), SystemChance())
    link.cable = cable
    return link


class Heart:
    """A host's beats."""

    def __init__(self, host: str, boot_id: str, link: BrokerLink) -> None:
        self.front = heart_bytes.front(host, boot_id, (BINARY,))
        self.subject, self.link = f"droveway.beat.{word(host)}", link
        self.counter = 0

    def beat(self, wall_us: int) -> None:
        self.counter += 1
        counter = self.counter
        self.link.publish(self.subject, self.front + TAIL.pack(1, counter, wall_us, counter & 0xFFFFFFFF, 3))


class Hosts:
    def __init__(self, plan: Plan) -> None:
        self.counts = Counts()
        self.fleet = Fleet(SystemClock(), SystemChance())
        self.links: list[CabledNats | CabledRabbit] = []
        self.hearts: list[list[Heart]] = [[] for _ in range(SLOTS)]
        self.agents: list[ComputeAgent] = []
        names = SystemNames()
        for number in range(plan.first, plan.first + plan.count):
            if (number - plan.first) % SHARED_BY == 0:
                self.links.append(link_of(plan, Cable(self.counts)))
            self.add(name_of(number), names.uuid(), self.links[-1])

    def add(self, name: str, boot_id: str, link: CabledNats | CabledRabbit) -> None:
        self.fleet.add_host(name, store=name)
        hypervisor = SimulatedHypervisor(self.fleet, name)
        bus = BrokerAgentBus(link, SystemChance(), SystemNames())
        self.agents.append(
            ComputeAgent(
                name,
                boot_id,
                f"the fleet's pid {os.getpid()}",
                hypervisor,
                bus,
                MemoryFences(),
                SystemClock(),
                off_loop=at_once,
            )
        )
        self.hearts[len(self.agents) % SLOTS].append(Heart(name, boot_id, link))

    async def run(self) -> None:
        """Until stdin ends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        obeyed: dict[str, Callable[..., Any]] = {
            "go": self.go,
            "cut": self.cut,
            "mend": self.mend,
            "count": self.count,
            "guests": self.guests,
        }

        def handle() -> None:
            text = os.read(0, 4096).decode()
            if not text:  # whoever started it is gone
                loop.remove_reader(0)
                ended.set()
            for line in text.splitlines():
                verb, *numbers = line.split()
                print(msgspec.json.encode(obeyed[verb](*map(int, numbers))).decode(), flush=True)

        loop.add_reader(0, handle)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 1000)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(agent.run()) for agent in self.agents]
            tasks.append(group.create_task(self.beat()))
            notify("ready")
            await ended.wait()
            os._exit(0)  # nothing here is worth an orderly end

    async def beat(self) -> None:
        slot, due_s = 0, time.monotonic()
        while True:
            now_s = time.monotonic()
            self.counts.late_ms = max(self.counts.late_ms, (now_s - due_s) * 1000)
            due_s = max(due_s, now_s - 1.0)  # it stood still: what was missed for longer is not made good
            while due_s <= now_s:
                wall_us = time.time_ns() // 1000
                for heart in self.hearts[slot % SLOTS]:
                    heart.beat(wall_us)
                self.counts.beats += len(self.hearts[slot % SLOTS])
                slot, due_s = slot + 1, due_s + 1 / SLOTS
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    # -- what it obeys ------------------------------------------------------------------------------------------------
    def go(self) -> bool:
        for link in self.links:
            link.cable.is_whole.set()
        return True

    def cut(self, count: int) -> list[str]:
        lost = self.links[: max(1, count // SHARED_BY)]
        for link in lost:
            link.cable.is_whole.clear()
            wire: Wire | None = link._wire
            if wire is not None:
                wire.abort()
        return list(self.fleet.hosts)[: len(lost) * SHARED_BY]

    def mend(self) -> bool:
        return self.go()

    def count(self) -> dict[str, Any]:
        said: dict[str, Any] = msgspec.to_builtins(self.counts)
        self.counts.late_ms = 0.0
        used = resource.getrusage(resource.RUSAGE_SELF)
        return said | {"violations": len(self.fleet.violations), "rss_mib": used.ru_maxrss / 1024}

    def guests(self) -> dict[str, dict[str, int]]:
        return {
            host.name: {
                one: len(host.store.consoles.get(one, ()))
                for one, domain in host.domains.items()
                if domain.state is GuestState.RUNNING
            }
            for host in self.fleet.hosts.values()
            if host.domains
        }


async def at_once(call: Callable[[], None]) -> None:
    call()


def notify(*words: object) -> None:
    print(*words, flush=True)


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    plan = msgspec.json.decode(sys.argv[1], type=Plan)

    async def work() -> None:
        await Hosts(plan).run()

    uvloop.run(work())


if __name__ == "__main__":
    main()
