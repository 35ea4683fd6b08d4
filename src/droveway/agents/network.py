"""The service `neutron-linuxbridge-agent` of a host: makes its networks as control says, and keeps them so.

It keeps the newest plan on its disk, before anything is done about it, and makes that true when it starts: a host whose
control is away gives its guests their networks after a reboot too. What was changed by hand is mended a few seconds
later. Its death touches no packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from droveway.agents.health import HealthReports
from droveway.agents.kept_plan import KeptPlan
from droveway.agents.metadata.kept import KeptGuests, MemoryKeptGuests
from droveway.agents.metadata.server import MetadataServer, NotServed
from droveway.agents.pulse import Pulse
from droveway.domain.guest_data import GuestData
from droveway.domain.network_change import PlanChange, applied
from droveway.domain.network_plan import HostNetworks, NotInForce
from droveway.domain.service_kinds import NETWORK
from droveway.ports.bus import (
    AgentBus,
    ApplyNetworks,
    ChangeNetworks,
    Command,
    Hello,
    ListTasks,
    Ping,
    ReadNetworks,
    RestoreConnections,
    SaveConnections,
    SendGuestData,
    Welcome,
)
from droveway.ports.clock import Clock
from droveway.ports.network import Network, NetworkRefused
from droveway.ports.replies import (
    Answer,
    Connections,
    ConnectionsRestored,
    NetworksApplied,
    PingResult,
    Refused,
    StaleFence,
    Tasks,
    Unavailable,
    Working,
)

log = structlog.get_logger("droveway.network")
MEND_S = 10.0  # between two comparisons with what is there
PASSWORDS_S = 1.0  # between two looks for what guests have set
AGAIN_S = 2.0  # after it could not be made
ANSWER_S = 3.0  # a plan that takes longer to make is answered with `working`
NAMED_MAX = 5  # things in one sentence
OffLoop = Callable[[Callable[[], None]], Awaitable[None]]


class HostFacts(msgspec.Struct, frozen=True):
    """What the host has for networks, as its configuration says."""

    tunnel_address: str = ""
    physical_networks: tuple[str, ...] = ()


class NetworkAgent:
    """One host's. `pulse` reports its progress to its host's heart."""

    def __init__(
        self,
        host: str,
        boot_id: str,
        address: str,
        network: Network,
        bus: AgentBus,
        kept: KeptPlan,
        clock: Clock,
        facts: HostFacts,
        off_loop: OffLoop,
        pulse: Pulse | None = None,
        guests: KeptGuests | None = None,
        metadata: MetadataServer | None = None,
    ) -> None:
        self._host, self._boot_id, self._address = host, boot_id, address
        self._network, self._bus, self._kept, self._clock = network, bus, kept, clock
        self._facts, self._off_loop, self._pulse = facts, off_loop, pulse
        self._turn = asyncio.Lock()
        self._plan: HostNetworks | None = None  # the newest
        self._is_of_earlier_boot = False  # so its routers may be on another host by now: they wait for control
        self._in_force = -1  # its revision
        self._failed: tuple[NotInForce, ...] = ()
        self._trouble = "its networks have not been looked at yet"
        self._is_open = False
        self._troubled = asyncio.Event()
        self._kept_guests: KeptGuests = guests or MemoryKeptGuests()
        self._guests: dict[str, GuestData] = {}
        self._metadata = metadata
        self._unserved = ""  # why metadata is not served
        self._made: HostNetworks | None = None  # the last plan that is, and not only is to be
        self._to_serve = asyncio.Event()
        self._making: tuple[HostNetworks, asyncio.Task[str]] | None = None  # of the newest
        self._tasks: set[asyncio.Task[str]] = set()  # it, and those of older ones that have not ended
        self._passwords: dict[str, str] = {}  # by instance: what guests have set
        self._reports = HealthReports(
            host, NETWORK, boot_id, bus, clock, self.health, passwords=lambda: self._passwords
        )

    async def run(self) -> None:
        """Until cancelled."""
        try:
            kept, self._guests = self._kept.read(), self._kept_guests.read()
            if kept is not None:
                self._plan = msgspec.structs.replace(kept, told_in_boot="")
                self._is_of_earlier_boot = kept.told_in_boot != self._boot_id
            async with asyncio.TaskGroup() as group:
                if self._pulse is not None:
                    group.create_task(self._pulse.run(), name="pulse")
                await self._make()  # before control is heard
                group.create_task(self._bus.run(self._hello, self._on_welcome, self.handle))
                group.create_task(self._reports.run(), name="report")
                group.create_task(self._mend(), name="mend")
                if self._metadata is not None:
                    group.create_task(self._serve(self._metadata), name="metadata")
                    group.create_task(self._hear_passwords(self._metadata), name="passwords")
        except asyncio.CancelledError:
            if self._pulse is not None:
                self._pulse.leave()
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            if self._metadata is not None:
                self._metadata.close()
            await self._network.close()
            await self._bus.close()

    def _hello(self) -> Hello:
        return Hello(self._host, self._boot_id, self._address, service=NETWORK)

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._pulse is not None:
            self._pulse.set_interval(welcome.report_interval_s)
        if welcome.accepted:
            self._reports.ask()

    # -- what it does -------------------------------------------------------------------------------------------------
    async def handle(self, command: Command) -> Answer:
        """Carry the command out. Always answers."""
        try:
            match command.verb:
                case Ping():
                    return PingResult(self._boot_id)
                case ListTasks():
                    return Tasks()
                case ReadNetworks():
                    return self._applied()
                case ApplyNetworks(plan):
                    return await self._apply(plan)
                case ChangeNetworks(change):
                    return await self._change(change)
                case SendGuestData(guests):
                    return await self._keep_guests(guests)
                case SaveConnections(port_id):
                    return Connections(await self._network.connections(port_id))
                case RestoreConnections(port_id, saved):
                    await self._network.restore_connections(port_id, saved)
                    return ConnectionsRestored()
        except NetworkRefused as fault:
            return Refused(fault.reason)
        return Refused(f"{NETWORK} on {self._host} makes networks and has no guests")

    async def _change(self, change: PlanChange) -> Answer:
        """What does not begin from the plan that is here is not taken: control sees it, and sends the whole one."""
        if self._plan is not None and change.new.revision <= self._plan.revision:
            same = change.new.revision == self._plan.revision  # said twice
            return await self._apply(self._plan if same else change.new)
        if self._plan is None or self._plan.revision != change.base or self._is_of_earlier_boot:
            return self._applied()
        return await self._apply(applied(self._plan, change), change)

    async def _apply(self, plan: HostNetworks, change: PlanChange | None = None) -> Answer:
        """`change`: what makes it of the one that is here."""
        newest = -1 if self._plan is None else self._plan.revision
        if plan.revision < newest:
            return StaleFence(f"revision {plan.revision} of the networks is older than {newest}", newest)
        if self._making is None or self._making[0].revision != plan.revision or self._making[1].done():
            self._making = plan, asyncio.create_task(self._take(plan, change))
            self._tasks.add(self._making[1])
            self._making[1].add_done_callback(self._tasks.discard)
        making = self._making[1]
        await asyncio.wait({making}, timeout=ANSWER_S)
        if not making.done():
            return Working(f"the networks of revision {plan.revision} are being made")
        reason = making.result()
        return Unavailable(reason) if reason else self._applied()

    async def _take(self, plan: HostNetworks, change: PlanChange | None) -> str:
        """Why it is not in force; empty: it is, but for what has failed."""
        async with self._turn:
            if self._plan is not None and plan.revision < self._plan.revision:
                return f"revision {self._plan.revision} came in the meantime"
            if plan != self._plan or self._is_of_earlier_boot:
                try:
                    await self._keep(plan, change)
                except OSError as error:  # what is not on the disk must not be acted on
                    return f"the plan of networks cannot be kept ({error.strerror}): nothing was done"
                self._plan, self._is_of_earlier_boot = plan, False
                await self._forget_guests()
            await self._make_in_turn()
        return self._trouble

    async def _keep(self, plan: HostNetworks, change: PlanChange | None) -> None:
        marked = msgspec.structs.replace(plan, told_in_boot=self._boot_id)
        if change is None or self._plan is None or self._plan.revision != change.base or self._is_of_earlier_boot:
            await self._off_loop(lambda: self._kept.write(marked))
            return
        new = msgspec.structs.replace(change.new, told_in_boot=self._boot_id)
        await self._off_loop(lambda: self._kept.change(msgspec.structs.replace(change, new=new), marked))

    # -- what its guests are told of themselves -----------------------------------------------------------------------
    def _digests(self) -> dict[str, str]:
        """Of the guests of the plan."""
        ports = () if self._plan is None else self._plan.ports
        return {port.instance_id: port.data_digest for port in ports if port.data_digest}

    def _wants(self) -> tuple[str, ...]:
        known = {instance_id: guest.digest for instance_id, guest in self._guests.items()}
        return tuple(sorted(one for one, digest in self._digests().items() if known.get(one) != digest))

    async def _keep_guests(self, guests: tuple[GuestData, ...]) -> Answer:
        """Those alone that have a port here; what comes late is passed over."""
        async with self._turn:
            digests = self._digests()
            mine = [guest for guest in guests if digests.get(guest.facts.instance_id) == guest.digest]
            try:
                for guest in mine:
                    await self._off_loop(functools.partial(self._kept_guests.write, guest))
                    self._guests[guest.facts.instance_id] = guest
            except OSError as error:
                return Unavailable(f"guest metadata cannot be stored: {error.strerror}")
        self._to_serve.set()
        return self._applied()

    async def _forget_guests(self) -> None:
        """Those that have left the host."""
        here = self._digests()
        for instance_id in [one for one in self._guests if one not in here]:
            del self._guests[instance_id]
            await self._off_loop(functools.partial(self._kept_guests.forget, instance_id))

    async def _serve(self, metadata: MetadataServer) -> None:
        """Beside all else: a guest that is told a moment later asks again, a rule that comes later is a hole."""
        metadata.lost = self._to_serve.set
        while True:
            self._to_serve.clear()
            before = self._unserved
            try:
                if self._made is not None:
                    await metadata.bring(self._made, self._guests)
                self._unserved = ""
            except NotServed as fault:
                self._unserved = fault.reason
            if self._unserved != before:
                self._reports.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._unserved else MEND_S):
                    await self._to_serve.wait()

    async def _hear_passwords(self, metadata: MetadataServer) -> None:
        """What was heard is said until the process that serves its guest knows it from control."""
        while True:
            await self._clock.sleep(PASSWORDS_S)
            before, self._passwords = self._passwords, await metadata.passwords() if self._guests else {}
            if self._passwords and self._passwords != before:
                self._reports.look()

    async def _make(self) -> None:
        async with self._turn:
            await self._make_in_turn()

    async def _make_in_turn(self) -> None:
        """What the newest plan says. Control that has not been heard yet says nothing: then all stays as it is."""
        before = self._failed, self._trouble
        try:
            if not self._is_open:
                await self._network.open()
                self._is_open = True
            if self._plan is not None:
                has_all = not self._is_of_earlier_boot or not self._plan.routers
                plan = self._plan if has_all else msgspec.structs.replace(self._plan, routers=())
                if self._metadata is not None:
                    await self._metadata.withdraw(plan)
                self._failed = await self._network.apply(plan)
                self._in_force = plan.revision if has_all else -1
                self._made = plan
                if self._metadata is not None:
                    self._metadata.settle()
                self._to_serve.set()
            self._trouble = ""
        except NetworkRefused as fault:
            self._trouble = fault.reason
        if (self._failed, self._trouble) != before:
            self._reports.look()
            self._troubled.set()
            for one in self._failed:
                log.warning("not in force", kind=one.kind, id=one.id, because=one.reason)

    async def _mend(self) -> None:
        while True:
            if not self._trouble and not self._failed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MEND_S):
                        await self._troubled.wait()
            self._troubled.clear()
            if self._trouble or self._failed:
                await self._clock.sleep(AGAIN_S)
            await self._make()

    def _applied(self) -> NetworksApplied:
        facts, newest = self._facts, -1 if self._plan is None else self._plan.revision
        return NetworksApplied(
            self._in_force,
            self._failed,
            facts.tunnel_address,
            facts.physical_networks,
            self._boot_id,
            self._wants(),
            newest if newest != self._in_force else -1,
            takes_changes=True,
        )

    # -- what it reports ----------------------------------------------------------------------------------------------
    def health(self) -> tuple[bool, str]:
        """Whether all of its plan is in force, and a sentence."""
        if self._trouble:
            return False, self._trouble
        if self._plan is None:
            return True, "control has not said yet which networks it is to have"
        plan = self._plan
        counts = ((len(plan.networks), "network"), (len(plan.ports), "port"), (len(plan.routers), "router"))
        words = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts if count]
        if self._unserved:
            return False, self._unserved
        if plan.routers and self._is_of_earlier_boot:
            return True, f"{', '.join(words)}; the plan is of an earlier boot: its routers wait for control"
        if not self._failed:
            return True, f"{', '.join(words) or 'no network'}, all in force"
        named = [f"{one.kind} {one.id} ({one.reason})" for one in self._failed[:NAMED_MAX]]
        more = f", and {len(self._failed) - NAMED_MAX} more" if len(self._failed) > NAMED_MAX else ""
        return False, f"of {', '.join(words)} not in force: {', '.join(named)}{more}"
