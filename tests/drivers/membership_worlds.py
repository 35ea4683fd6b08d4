"""For each membership driver: its real server (or the simulated one), members that can be killed, and how to make the
server go away."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
from kazoo.client import KazooClient

from droveway.config.membership import EtcdConfig, MembershipSettings, MemcachedConfig, ZookeeperConfig
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.membership.etcd_wire import EtcdConnection
from droveway.drivers.membership.simulated import SimulatedServer, SimulatedServiceGroup
from droveway.ports.membership import EVERY_SERVICE, ServiceGroup, Unknown
from droveway.process.membership import service_group
from droveway.store.engine.transaction import DiskStore
from droveway.store.upgrade import bring_up_to_date
from lab.servers import Server
from tests.drivers.membership_member import Orders

CLONE = Path(__file__).resolve().parents[2]
READY_S = 60.0
LOOK_S = 0.01


class Ended(AssertionError):
    """A member's process ended by itself."""


class Killable:
    """Members in a process of their own."""

    def __init__(self, orders: Orders) -> None:
        self.said = ""
        self._popen = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--",
                sys.executable,
                "-m",
                "tests.drivers.membership_member",
                msgspec.json.encode(orders).decode(),
            ],
            cwd=CLONE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def joined(self) -> None:
        await self.says("joined")

    async def says(self, words: str) -> None:
        assert self._popen.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                while words not in self.said:
                    line = await asyncio.to_thread(self._popen.stdout.readline)
                    if not line:
                        raise Ended(f"it ended and had said {self.said}")
                    self.said += line
        except TimeoutError:
            self._popen.kill()  # or the thread that reads would wait for ever, and the end of the loop for it
            raise AssertionError(f"it has not said {words!r} within {READY_S:.0f} s, only {self.said!r}") from None

    async def kill(self) -> None:
        self._popen.kill()
        self._popen.wait(READY_S)
        if self._popen.stdout is not None:
            self._popen.stdout.close()


class Crashable:
    """Members of the simulated server: they die in this process."""

    def __init__(self, end: SimulatedServiceGroup, orders: Orders) -> None:
        self._end, self._orders = end, orders
        self.said = ""

    async def joined(self) -> None:
        await self._end.open(lambda _group, _member: None, lambda _up, _rate_limited: None)
        for member in self._orders.members:
            await self._end.join(self._orders.group, member)

    async def kill(self) -> None:
        await self._end.crash()


class World:
    """One driver against its server."""

    slack_s = 1.0  # this machine is shared: the guarantee is measured in the benchmark, here it is only bounded

    def __init__(self, settings: MembershipSettings) -> None:
        self.settings = settings
        self.name = settings.servicegroup_driver
        self.taken_over = {"zk": "still held", "etcd": "taken over"}.get(self.name, "")
        # Long enough for every session to run out, by the server's own clock too.
        self.outage_s = {"zk": 1.9, "etcd": 2.7, "simulated": 0.6}.get(self.name, 1.6)
        self._members: list[Killable | Crashable] = []
        self._server: Server | None = None

    def serve(self, server: Server) -> World:
        self._server = server
        return self

    def end(self) -> ServiceGroup:
        made = service_group(self.settings, SystemClock())
        assert made is not None
        return made

    @contextlib.asynccontextmanager
    async def opened(self, end: ServiceGroup | None = None) -> AsyncIterator[Observing]:
        seen = Observing(end or self.end())
        await seen.end.open(lambda group, member: seen.changes.append((group, member)), seen.note)
        try:
            yield seen
        finally:
            await seen.end.close()

    async def member(self, *names: str, group: str = EVERY_SERVICE) -> Killable | Crashable:
        made = self._made(Orders(self.settings, group, list(names), self.database))
        self._members.append(made)
        await made.joined()
        return made

    async def all_die(self) -> None:
        for made in self._members:
            await made.kill()
        self._members.clear()

    database = ""

    def _made(self, orders: Orders) -> Killable | Crashable:
        return Killable(orders)

    # -- the server -------------------------------------------------------------------------------------------------
    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()

    data = ""  # the directory of what the server knows, in that of each node; empty: it keeps nothing

    def lose_data(self) -> None:
        """Killed, emptied and started again."""
        self.server.kill()
        for node in self.server.nodes if self.data else ():
            for path in (node.directory / self.data).iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
        self.server.start()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    async def strew_garbage(self, group: str) -> None:
        """Things in the server's namespace that no driver wrote."""
        raise NotImplementedError


class ZookeeperWorld(World):
    data = "data"

    @contextlib.contextmanager
    def client(self) -> Iterator[KazooClient]:
        client = KazooClient(self.server.address)
        client.start()
        try:
            yield client
        finally:
            client.stop()
            client.close()

    async def strew_garbage(self, group: str) -> None:
        def strew() -> None:
            with self.client() as client:
                for name in ("%zz", "%ff", "h1%2fnova", "a b", "ö", "x" * 1000):
                    if not client.exists(f"/servicegroups/{group}/{name}"):
                        client.create(f"/servicegroups/{group}/{name}", b"\xff\0", makepath=True)

        await asyncio.to_thread(strew)


class EtcdWorld(World):
    data = "data"

    async def strew_garbage(self, group: str) -> None:
        client = EtcdConnection(self.server.address, 2.0)
        for key in (b"%zz", b"\xff\xfe", b"a/b/c", b"", b"x" * 1000, b"h1%2fnova"):
            await client.put(f"/servicegroups/{group}/".encode() + key, b"\xff", 0)
        await client.put(b"/servicegroups/", b"", 0)
        await client.close()


class MemcachedWorld(World):
    async def strew_garbage(self, group: str) -> None:
        from droveway.drivers.membership import memcached
        from droveway.drivers.membership.memcached_wire import MemcachedConnection

        client = MemcachedConnection(self.server.address, 2.0)
        junk = b"%zz\n\xff\xfe\n\nh1%2fnova\n" + b"x" * 1000
        keys = [memcached._index("servicegroups", group, shard) for shard in range(memcached.SHARDS)]
        await client.set(dict.fromkeys(keys, junk), 0)
        client.close()


class DbWorld(World):
    """Its server is a database file. Away: another program holds the lock that writers need."""

    def __init__(self, settings: MembershipSettings, path: Path) -> None:
        super().__init__(settings)
        self.path = path
        self.database = f"sqlite:///{path}"
        bring_up_to_date(self.database)
        self._lock = sqlite3.connect(path, isolation_level=None)

    def close(self) -> None:
        self._lock.close()

    def end(self) -> ServiceGroup:
        made = service_group(self.settings, SystemClock(), DiskStore(self.database, SystemClock(), SystemNames()))
        assert made is not None
        return made

    @contextlib.asynccontextmanager
    async def opened(self, end: ServiceGroup | None = None) -> AsyncIterator[Observing]:
        async with super().opened(end) as seen:
            yield seen
        await seen.end._store.close()  # type: ignore[attr-defined]

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return self._lock.execute(statement, values).fetchall()

    def stop(self) -> None:
        self._lock.execute("BEGIN IMMEDIATE")

    def start(self) -> None:
        self._lock.execute("ROLLBACK")

    freeze, thaw = stop, start

    async def strew_garbage(self, group: str) -> None:
        """The services table takes no garbage: it has columns."""


class SimulatedWorld(World):
    def __init__(self) -> None:
        super().__init__(MembershipSettings(servicegroup_driver="simulated"))
        self.imagined = SimulatedServer(SystemClock(), session_timeout_s=0.4)

    def end(self) -> SimulatedServiceGroup:
        return SimulatedServiceGroup(self.imagined)

    def _made(self, orders: Orders) -> Crashable:
        return Crashable(self.end(), orders)

    def stop(self) -> None:
        self.imagined.go_away()

    def start(self) -> None:
        self.imagined.come_back()

    freeze, thaw = stop, start

    async def strew_garbage(self, group: str) -> None:
        """A dictionary of names."""


class Observing:
    """An opened end, and what it was told."""

    def __init__(self, end: ServiceGroup) -> None:
        self.end = end
        self.changes: list[tuple[str, str]] = []
        self.connections: list[tuple[bool, str]] = []

    def note(self, is_up: bool, reason: str) -> None:
        self.connections.append((is_up, reason))

    async def look(self, member: str, group: str = EVERY_SERVICE) -> str:
        """present, held, absent or unknown"""
        try:
            found = await self.end.get_one(group, member)
        except Unknown:
            return "unknown"
        if found is None or not found.is_present:
            return "absent"
        return "held" if found.is_held else "present"

    async def until(self, member: str, *states: str, within_s: float, group: str = EVERY_SERVICE) -> float:
        """How long it took until the member was seen in one of these states."""
        began = time.monotonic()
        while (state := await self.look(member, group)) not in states:
            waited = time.monotonic() - began
            assert waited <= within_s, f"{member} is {state} after {waited:.1f} s; told: {self.connections}"
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    @contextlib.asynccontextmanager
    async def watching(self, *members: str) -> AsyncIterator[dict[str, list[str]]]:
        """Every state that each was ever seen in meanwhile, in order, without repetitions."""
        states: dict[str, list[str]] = {member: [] for member in members}

        async def watch() -> None:
            while True:
                for member, seen in states.items():
                    if (state := await self.look(member)) not in seen[-1:]:
                        seen.append(state)
                await asyncio.sleep(LOOK_S)

        task = asyncio.create_task(watch())
        try:
            yield states
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


QUICK = {"report_interval": 0.2, "service_down_time": 1.2}


def zookeeper_settings(address: str) -> MembershipSettings:
    z = ZookeeperConfig(address, sg_retry_interval=0.5, session_timeout=1.5, tick_time=0.1)
    return MembershipSettings("zk", zookeeper=z)


def etcd_settings(address: str) -> MembershipSettings:
    return MembershipSettings("etcd", etcd=EtcdConfig(address, lease=2))


def memcached_settings(address: str) -> MembershipSettings:
    return MembershipSettings("mc", memcached=MemcachedConfig(address), **QUICK)
