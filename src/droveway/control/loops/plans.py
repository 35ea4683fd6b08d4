"""Where the networks loop has the plans of hosts from: what was read of the rows is kept, and only what has changed
since is read. The whole read (store/network/planning.py) stays the truth: now and then one host's plan is compared with
it, and where they differ everything is read anew, and an error is logged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec
import structlog

from droveway.domain.network.picture import News, Picture
from droveway.domain.network_plan import HostNetworks
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.network import changes, in_force, news, planning

log = structlog.get_logger("droveway.networks")
READ_AT_ONCE = 64  # hosts whose plans are read together
PORTS_MAX = 100_000  # that are kept: some 100 MB; of a larger cloud each plan is read whole
TRY_AGAIN_S = 600.0  # after which a cloud that was too large is counted again
COMPARED_S = 60.0  # between two comparisons of a host with the whole read
FORGET_EVERY = 2_000  # changes
OLD = -2  # a revision that no host is told
PlanOf = Callable[[Tx, str, Mapping[str, str]], HostNetworks]
Look = Callable[[Tx, int, int], News | None]


class Plans(Protocol):
    async def newest(self, known: Mapping[str, int]) -> tuple[int, dict[str, HostNetworks]]:
        """The revision of networks, and the plans of those hosts that know an older one."""
        ...

    async def of(self, hosts: Iterable[str]) -> dict[str, HostNetworks]:
        """As the rows are now."""
        ...

    def forget(self, host: str) -> None:
        """It is not connected any more."""
        ...


class WholePlans:
    """Each is read whole."""

    def __init__(
        self, store: Store, plan_of: PlanOf = planning.of_host, revision: Callable[[Tx], int] = changes.revision
    ) -> None:
        self._store, self._plan_of, self._revision = store, plan_of, revision

    async def newest(self, known: Mapping[str, int]) -> tuple[int, dict[str, HostNetworks]]:
        revision = await self._store.read(self._revision)
        old = [host for host, its in known.items() if its < revision]
        return revision, await self.of(old) if old else {}

    async def of(self, hosts: Iterable[str]) -> dict[str, HostNetworks]:
        asked = sorted(hosts)
        found: dict[str, HostNetworks] = {}
        for some in (asked[i : i + READ_AT_ONCE] for i in range(0, len(asked), READ_AT_ONCE)):
            found |= await self._store.read(self._read, some)
        return found

    def forget(self, host: str) -> None:
        pass

    def _read(self, tx: Tx, hosts: list[str]) -> dict[str, HostNetworks]:
        tunnels = in_force.tunnel_addresses(tx)
        return {host: self._plan_of(tx, host, tunnels) for host in hosts}


class KeptPlans:
    """Made of a picture of all networks that is kept. `differs` is told what a comparison found; `compared_s`: the time
    between two, 0: each plan is compared."""

    def __init__(self, store: Store, clock: Clock, look: Look = news.look) -> None:
        self._store, self._clock, self._look = store, clock, look
        self._whole = WholePlans(store)
        self._turn = asyncio.Lock()  # the picture is taken and read in a thread of the store
        self._picture: Picture | None = None
        self._too_large_until_s = -math.inf
        self._compared_at_s = clock.monotonic_s()
        self._forgot_at = 0
        self.compared_s = COMPARED_S
        self.ports_max = PORTS_MAX
        self.differs: Callable[[str], None] = lambda reason: log.error("a bug: plans of networks", because=reason)

    async def newest(self, known: Mapping[str, int]) -> tuple[int, dict[str, HostNetworks]]:
        if self._picture is None or len(known) > READ_AT_ONCE:
            revision, _ = await self._whole.newest({})
            return revision, await self.of([host for host, its in known.items() if its < revision])
        async with self._turn:
            found = await self._store.read(self._read, known)
            await self._forget_old()
        if found is None or self._picture is None:  # it has grown too large, or was not what the rows say
            revision, _ = await self._whole.newest({})
            return revision, found or {}
        return self._picture.revision, found

    async def of(self, hosts: Iterable[str]) -> dict[str, HostNetworks]:
        asked = sorted(hosts)
        found: dict[str, HostNetworks] = {}
        async with self._turn:
            while asked and self._clock.monotonic_s() >= self._too_large_until_s:
                some = await self._store.read(self._read, dict.fromkeys(asked[:READ_AT_ONCE], OLD))
                if some is None:
                    self._picture = None
                    self._too_large_until_s = self._clock.monotonic_s() + TRY_AGAIN_S
                    break
                found |= some
                asked = asked[READ_AT_ONCE:]
            await self._forget_old()
        return found | await self._whole.of(asked) if asked else found

    def forget(self, host: str) -> None:
        if self._picture is not None and not self._turn.locked():
            self._picture.forget(host)

    def _read(self, tx: Tx, known: Mapping[str, int]) -> dict[str, HostNetworks] | None:
        """The plans of those hosts that know an older revision. None: the cloud has more ports than are kept."""
        picture, self._picture = self._picture, None  # what fails in the middle of it is no picture
        seen = self._look(tx, -1 if picture is None else picture.last, self.ports_max)
        if seen is None:
            return None
        if picture is None or seen.is_whole:
            picture = Picture()
        picture.take(seen)
        found = {host: picture.plan_of(host) for host, its in known.items() if its < picture.revision}
        now_s = self._clock.monotonic_s()
        if found and now_s - self._compared_at_s >= self.compared_s:
            self._compared_at_s = now_s
            if self._repaired(tx, found if self.compared_s == 0 else dict([min(found.items())])):
                return self._whole._read(tx, sorted(found))
        if len(picture) <= self.ports_max:
            self._picture = picture
        return found

    def _repaired(self, tx: Tx, found: Mapping[str, HostNetworks]) -> bool:
        """Whether one of them is not what a whole read says."""
        tunnels = in_force.tunnel_addresses(tx)
        for host, kept in found.items():
            whole = planning.of_host(tx, host, tunnels)
            if kept != whole:
                parts = [name for name in whole.__struct_fields__ if getattr(kept, name) != getattr(whole, name)]
                self.differs(f"what is kept for {host} of revision {whole.revision} has other {', '.join(parts)}")
                return True
        return False

    async def _forget_old(self) -> None:
        picture = self._picture
        if picture is not None and picture.last - self._forgot_at >= FORGET_EVERY:
            self._forgot_at = picture.last
            await self._store.run(changes.forget_old)


def as_of_0(plan: HostNetworks) -> HostNetworks:
    """To be compared with that of another revision."""
    return msgspec.structs.replace(plan, revision=0)
