"""Members as keys under one lease per process: <prefix>/<group>/<member> lives as long as the lease is kept alive.

One keepalive serves all members of a process, and is also the question whether the server is there. A name that an
earlier process still holds is taken over at once: a put moves the key to the new lease without a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

import grpc
import msgspec
import structlog

from droveway.config.membership import MembershipSettings
from droveway.drivers.membership import names
from droveway.drivers.membership.etcd_wire import Access, EtcdConnection, LeaseGone, credentials
from droveway.drivers.membership.grace import Grace
from droveway.drivers.membership.unending import unending
from droveway.ports.clock import Clock
from droveway.ports.membership import DetectedBy, Guarantees, Presence, Unknown

log = structlog.get_logger("droveway.config.membership")
BEATS_A_LEASE = 4  # an outage is noticed within two of them: before any lease can have run out by it
REVOKES_EVERY_S = 0.5  # etcd looks for leases that have run out
SLACK_S = 0.5
AGAIN_FIRST_S, AGAIN_MAX_S = 0.1, 1.0
TROUBLES = (grpc.RpcError, LeaseGone, TimeoutError, ValueError, KeyError, OSError)


class EtcdSettings(msgspec.Struct, frozen=True):
    address: str  # HOST:PORT, several separated by commas
    prefix: str = "/servicegroups"
    lease_s: int = 3
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    user: str = ""
    password: str = ""


class EtcdServiceGroup:
    def __init__(self, settings: EtcdSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._addresses = settings.address.split(",")
        self._pulse_s = settings.lease_s / BEATS_A_LEASE
        self.guarantees = self._declared(settings.lease_s)
        self._grace = Grace(clock, settings.lease_s + AGAIN_MAX_S)
        self._prefix = f"{settings.prefix.rstrip('/')}/".encode()
        self._access = Access(
            credentials(settings.tls_ca, settings.tls_cert, settings.tls_key), settings.user, settings.password
        )
        self._wanted: set[tuple[str, str]] = set()
        self._leaving: set[tuple[str, str]] = set()  # their keys must still go
        self._seen: dict[str, dict[str, Presence]] = {}
        self._asked: set[str] = set()
        self._lease = 0
        self._server: EtcdConnection | None = None  # while it answers
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._changed: Callable[[str, str], None] = lambda _group, _member: None
        self._connection: Callable[[bool, str], None] = lambda _up, _reason: None

    # -- the port -----------------------------------------------------------------------------------------------------
    async def open(self, changed: Callable[[str, str], None], connection: Callable[[bool, str], None]) -> None:
        self._changed, self._connection = changed, connection
        self._task = unending(self._run(), "etcd", self._broken)

    async def close(self) -> None:
        if self._task is None:
            return
        server, self._server = self._server, None
        if server is not None and self._lease:
            with contextlib.suppress(*TROUBLES):
                await server.revoke(self._lease)  # the members vanish now
        self._is_closing = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def join(self, group: str, member: str) -> None:
        self._key(group, member)
        self._wanted.add((group, member))
        self._leaving.discard((group, member))
        if self._server is not None:
            with contextlib.suppress(*TROUBLES):  # else when the connection is made again
                await self._put(self._server, group, member)

    async def leave(self, group: str, member: str) -> None:
        key = self._key(group, member)
        self._wanted.discard((group, member))
        self._leaving.add((group, member))
        if self._server is not None:
            with contextlib.suppress(*TROUBLES):  # else when the connection is made again
                await self._server.delete(key)
                self._leaving.discard((group, member))

    async def get_all(self, group: str) -> dict[str, Presence]:
        return dict(await self._known(group))

    async def get_one(self, group: str, member: str) -> Presence | None:
        return (await self._known(group)).get(member)

    async def service_is_up(self, group: str, member: str) -> bool:
        found = await self.get_one(group, member)
        return found is not None and found.is_present

    async def _known(self, group: str) -> dict[str, Presence]:
        names.encode(group)
        self._asked.add(group)
        if not self._ready.is_set() and self._task is not None:  # just opened
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pulse_s):
                    await self._ready.wait()
        if self._server is None:
            raise Unknown(f"etcd at {self._settings.address} does not answer: who is a member cannot be told")
        return self._grace.over(group, self._seen.setdefault(group, {}))

    # -- one connection after the other -------------------------------------------------------------------------------
    async def _run(self) -> None:
        again_s, attempt, is_logged = AGAIN_FIRST_S, 0, False
        while True:
            address = self._addresses[attempt % len(self._addresses)]
            server = EtcdConnection(address, self._pulse_s, self._access)
            error: BaseException = TimeoutError("the connection ended")
            try:
                await self._serve(server)
            except* TROUBLES as group:
                error = group.exceptions[0]
            finally:
                was_up, self._server = self._server is not None, None
                await server.close()
            if self._is_closing:  # a group of tasks that fail meanwhile tells of them alone
                raise asyncio.CancelledError
            task = asyncio.current_task()
            while task is not None and task.cancelling():  # Python 3.11's groups leave one behind when a task fails
                task.uncancel()
            self._grace.lost()
            if isinstance(error, LeaseGone):
                self._lease = 0
            if was_up or not is_logged:
                is_logged = True
                reason = (
                    f"etcd at {address} does not answer ({_short(error)}); trying again at least every "
                    f"{AGAIN_MAX_S:g} s"
                )
                if isinstance(error, LeaseGone):
                    reason = f"the lease at etcd has run out or was revoked ({error}); making a new one"
                log.warning("membership server away", because=reason, error=_short(error))
                self._connection(False, reason)
            again_s, attempt = AGAIN_FIRST_S if was_up else min(2 * again_s, AGAIN_MAX_S), attempt + 1
            await self._clock.sleep(again_s)

    def _broken(self, reason: str) -> None:
        self._ready.set()
        self._connection(False, reason)

    async def _serve(self, server: EtcdConnection) -> None:
        """One connection, until it fails."""
        await server.log_in()
        if not (self._lease and await server.keep_alive(self._lease)):
            self._lease, granted_s = await server.grant(self._settings.lease_s)
            self.guarantees = self._declared(granted_s)
        revision, keys = await server.keys(self._prefix)
        put: set[tuple[str, str]] = set()
        while (missing := self._wanted - put) or self._leaving:  # others may join and leave meanwhile
            for group, member in missing:
                await self._put(server, group, member)
            put |= missing
            for group, member in list(self._leaving):
                await server.delete(self._key(group, member))
                self._leaving.discard((group, member))
        self._take(keys)
        self._grace.back()
        self._server = server
        self._ready.set()
        self._connection(True, f"connected to etcd at {self._settings.address}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pulse(server))
            tasks.create_task(self._watch(server, revision + 1))
            tasks.create_task(self._tell_when_grace_is_over())

    async def _pulse(self, server: EtcdConnection) -> None:
        while True:
            await self._clock.sleep(self._pulse_s)
            if not await server.keep_alive(self._lease):
                raise LeaseGone("etcd knows it no more")

    async def _watch(self, server: EtcdConnection, revision: int) -> None:
        async for changes in server.watch(self._prefix, revision):
            for change in changes:
                if (named := self._named(change.key)) is None:
                    continue
                if not change.is_gone:
                    self._become(*named, present=True)
                elif named in self._wanted:
                    await self._put(server, *named)  # it was deleted by hand, or its old lease ran out
                else:
                    self._become(*named, present=False)

    async def _put(self, server: EtcdConnection, group: str, member: str) -> None:
        before = await server.put(self._key(group, member), b"", self._lease)
        if before is not None and before != self._lease:
            reason = f"the name was still held by the lease {before:x} of an earlier process, and was taken over"
            log.warning("member name still held by an older session", group=group, member=member, because=reason)
            self._connection(True, f"{group}/{member}: {reason}")

    async def _tell_when_grace_is_over(self) -> None:
        await self._clock.sleep(self._grace.grace_s)
        for group, member in self._grace.missing():
            if member not in self._seen.get(group, {}) and group in self._asked:
                self._changed(group, member)

    # -- who is there -------------------------------------------------------------------------------------------------
    def _take(self, keys: list[bytes]) -> None:
        """Everything anew, after a connection."""
        found = {named for key in keys if (named := self._named(key)) is not None} | self._wanted
        for group, members in list(self._seen.items()):
            for member in list(members):
                if (group, member) not in found:
                    self._become(group, member, present=False)
        for group, member in found:
            self._become(group, member, present=True)

    def _become(self, group: str, member: str, *, present: bool) -> None:
        members = self._seen.setdefault(group, {})
        if (member in members) is present:
            return
        if present:
            members[member] = Presence(member, True, "its lease lives")
        else:
            del members[member]
        self._grace.over(group, members)
        if group in self._asked:
            self._changed(group, member)

    def _key(self, group: str, member: str) -> bytes:
        return self._prefix + f"{names.encode(group)}/{names.encode(member)}".encode()

    def _named(self, key: bytes) -> tuple[str, str] | None:
        parts = key.removeprefix(self._prefix).decode("ascii", "replace").split("/")
        group, member = map(names.decode, parts) if len(parts) == 2 else (None, None)
        return None if group is None or member is None else (group, member)

    def _declared(self, lease_s: int) -> Guarantees:
        return Guarantees(
            DetectedBy.LEASE, may_forget=False, pushes=True, detection_s=math.ceil(lease_s) + REVOKES_EVERY_S + SLACK_S
        )


def _short(error: BaseException) -> str:
    return error.details() if isinstance(error, grpc.aio.AioRpcError) else repr(error)


def make(settings: MembershipSettings, clock: Clock, _store: object) -> EtcdServiceGroup:
    e = settings.etcd
    return EtcdServiceGroup(EtcdSettings(e.servers, e.prefix, e.lease, **e.credentials), clock)
