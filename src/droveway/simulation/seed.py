"""One seed: turbulence until enough has happened, then peace, and then everything must end within a bound."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import msgspec
from sqlalchemy import func, select

from droveway.simulation import (
    audits,
    checkers,
    interface_users,
    network_phases,
    resize_users,
    severities,
    verdict_laws,
)
from droveway.simulation.faults import Faults
from droveway.simulation.guest_memory import MemoryUsers
from droveway.simulation.loop import SimLoop
from droveway.simulation.network import LATE_MAX_S
from droveway.simulation.network_users import NetworkUsers
from droveway.simulation.operators import Listener, Operator
from droveway.simulation.other_release import OtherRelease
from droveway.simulation.volume_users import VolumeUsers
from droveway.simulation.workloads import UserWorkload
from droveway.simulation.world import FLAVORS, Parts, World
from droveway.store.engine.transaction import Tx
from droveway.store.schema import sagas

COMMANDS_MIN = 400
KILLS_MIN = 5
TURBULENCE_MIN_S, TURBULENCE_MAX_S = 20.0, 1500.0
LOOK_S = 5.0
TURBULENT_LOOK_S = 1.0
STAYS_OFF, IS_GONE = 0.3, 0.6  # of the seeds; and of those
STORE_HANGS = 0.3
OF_ANOTHER_RELEASE = 0.3
STAYS_DOWN_S, SETTLES_WITHIN = 15.0, 2  # dead or silent at first, and then gone
DELETED_S = 90.0  # within which what was on a host that was declared gone can be deleted
PEACE_MAX_S = 300.0  # within which everything must have ended: a failed start is tried again after a minute
QUIET_S = LATE_MAX_S + 5.0  # and it stays so, whatever message arrives late


class Outcome(msgspec.Struct):
    seed: int
    severity: str
    wrong: list[str]  # sentences; none is good
    digest: str
    simulated_s: float
    commands: int
    kills: int
    counts: dict[str, int]
    trace: list[str] | None = None
    cpu_s: float = 0.0  # of the process that played it; part of no digest


def run_seed(seed: int, parts: Parts | None = None, *, keep_trace: bool = False) -> Outcome:
    """Play that seed to its end. The same seed plays the same, line by line."""
    loop = SimLoop()  # type: ignore[abstract] # what no simulated program calls is not there
    was_collecting = gc.isenabled()
    gc.disable()  # garbage would be collected at moments of its own; it is done between seeds instead
    try:
        outcome = _play(loop, seed, parts or Parts(), keep_trace)
        loop.close()  # its timers hold the world, of which nothing is left now
        gc.collect()
        gc.freeze()  # what outlives a seed (modules, compiled statements) is not looked through after the next one
        outcome.wrong += [f"not caught: {trouble}" for trouble in loop.troubles if trouble.startswith("Task")]
        return outcome
    finally:
        loop.close()
        if was_collecting:
            gc.enable()


def _play(loop: SimLoop, seed: int, parts: Parts, keep_trace: bool) -> Outcome:
    outcome: Outcome = loop.run_until_complete(_Play(World(loop, seed, parts, keep_trace=keep_trace)).play())
    return outcome


class _Play:
    def __init__(self, world: World) -> None:
        self._world = world
        self._severity = severities.draw(world.rng)

    async def play(self) -> Outcome:
        world = self._world
        world.start()
        await asyncio.sleep(LOOK_S)
        of_networks = self._of_networks = None if world.networks is None else NetworkUsers(world)
        nics = {} if of_networks is None else {"nics": of_networks.nics}
        users = self._users = UserWorkload(world, people=5, most=12, pause_s=0.8, **nics)
        has_interfaces = of_networks is not None and interface_users.are_played(world.seed)
        of_interfaces = interface_users.InterfaceUsers(world) if has_interfaces else None
        flavors = tuple(flavor.id for flavor in FLAVORS)
        of_sizes = resize_users.ResizeUsers(world, flavors) if resize_users.are_played(world.seed) else None
        listener = Listener(world)
        of_volumes = self._of_volumes = None if world.volumes is None else VolumeUsers(world)
        of_memory = MemoryUsers(world)
        operator = self._operator = Operator(world)
        trouble = Faults(world, severities.SEVERITIES[self._severity])
        other = OtherRelease(world)
        auditors = audits.Auditors(world)
        wrong = await self._turbulence(trouble)
        trouble.stop()
        users.stopped = True
        of_memory.stop()
        if of_networks is not None:
            of_networks.stop()
        if of_interfaces is not None:
            of_interfaces.stop()
        if of_sizes is not None:
            of_sizes.stop()
        if of_volumes is not None:
            of_volumes.stop()
        auditors.stop()
        other.stop()
        await operator.put_right()
        wrong = wrong or await self._one_stays_off(trouble) or await self._one_store_hangs()
        wrong = wrong or await self._one_is_of_another_release(other)
        wrong = wrong or await network_phases.rule_in_force(world, of_networks)
        if world.rng.random() < 0.5:
            wrong = wrong or await self._peace("peace", QUIET_S)
        else:
            wrong = wrong or await self._peace("a moment of peace", 0.0) or await self._all_deleted(users)
        wrong = wrong or listener.missed() or self._enough(trouble)
        return await self._end(trouble, wrong)

    async def _turbulence(self, trouble: Faults) -> list[str]:
        world = self._world
        began_s = world.loop.time()
        while True:
            await asyncio.sleep(TURBULENT_LOOK_S)
            wrong = checkers.broken_laws(world)
            lasted_s = world.loop.time() - began_s
            enough = world.network.counts["commands"] >= COMMANDS_MIN and trouble.kills >= KILLS_MIN
            if wrong or lasted_s >= TURBULENCE_MAX_S or (enough and lasted_s >= TURBULENCE_MIN_S):
                return wrong

    async def _one_stays_off(self, trouble: Faults) -> list[str]:
        """No lie for ever: who stays off is shown down, whatever the clocks on the walls say meanwhile."""
        world = self._world
        if world.rng.random() < STAYS_OFF:
            host = world.rng.choice(list(world.hosts.values()))
            world.trace.note(f"{host.name} goes off, and stays off")
            host.crash()
            until_s = world.loop.time() + verdict_laws.SHOWN_DOWN_S
            await asyncio.sleep(LOOK_S / 2)
            trouble.step_clocks()
            while world.database.look(lambda tx: checkers.shows_up(tx, host.name)):
                if world.loop.time() >= until_s:
                    return [f"{host.name} has been off for {verdict_laws.SHOWN_DOWN_S:.0f} s and is shown up"]
                await asyncio.sleep(TURBULENT_LOOK_S)
            wrong = await self._stays_down(host.name) or await network_phases.routers_moved(world, host.name)
            if not wrong and world.rng.random() < IS_GONE:
                wrong = await self._gone_for_good(host.name)
            host.boot()
            if wrong or not await self._operator.let_in(host.name):
                return wrong or [f"{host.name} could not be let in again"]
        return checkers.broken_laws(world)

    async def _stays_down(self, name: str) -> list[str]:
        """Nothing happens to it, so little is said of it: a verdict changes only when evidence does."""
        verdicts = self._world.words.verdicts_on(name)
        await asyncio.sleep(STAYS_DOWN_S)
        verdicts = self._world.words.verdicts_on(name) - verdicts
        return (
            [f"{verdicts} verdicts on {name} in {STAYS_DOWN_S:.0f} s, and it is off"]
            if verdicts > SETTLES_WITHIN
            else []
        )

    async def _gone_for_good(self, name: str) -> list[str]:
        """An operator says so: sagas wait for it no longer, and what is there can be deleted."""
        world = self._world
        if not await self._operator.declare_gone(name):
            return [f"{name} is off and could not be declared gone"]
        there = world.database.look(lambda tx: checkers.concerned(tx, name))
        for instance_id in there:
            await self._users.delete(instance_id)
        until_s = world.loop.time() + DELETED_S
        while left := world.database.look(lambda tx: checkers.undeleted(tx, there)):
            if world.loop.time() >= until_s:
                return [f"{name} was declared gone {DELETED_S:.0f} s ago: {reason}" for reason in left]
            await asyncio.sleep(TURBULENT_LOOK_S)
        return checkers.broken_laws(world)

    async def _one_store_hangs(self) -> list[str]:
        """Who cannot reach its disks says so within a bound, whatever its agent waits for; and when it can again."""
        world = self._world
        if world.rng.random() < STORE_HANGS:
            name = world.rng.choice(list(world.hosts))
            for is_hung, change in ((True, world.fleet.mounts.hang), (False, world.fleet.mounts.answer)):
                world.trace.note(f"the store of {name} {'hangs' if is_hung else 'answers'}")
                change(name)
                until_s = world.loop.time() + checkers.STORE_SHOWN_S
                while world.database.look(lambda tx: checkers.shows_store_trouble(tx, name)) is not is_hung:
                    if world.loop.time() >= until_s:
                        how = "hung and its host is shown usable" if is_hung else "answered and its host is shown hung"
                        return [f"the store of {name} has {how} for {checkers.STORE_SHOWN_S:.0f} s"]
                    await asyncio.sleep(TURBULENT_LOOK_S)
        return checkers.broken_laws(world)

    async def _one_is_of_another_release(self, other: OtherRelease) -> list[str]:
        """It is not touched, a list of sagas shows why, and all others end."""
        world = self._world
        if world.rng.random() < OF_ANOTHER_RELEASE and other.put():
            until_s = world.loop.time() + PEACE_MAX_S
            while left := await other.not_yet():
                if world.loop.time() >= until_s:
                    return [f"after {PEACE_MAX_S:.0f} s {reason}" for reason in left]
                await asyncio.sleep(TURBULENT_LOOK_S)
            other.carry_on()
        return checkers.broken_laws(world)

    async def _peace(self, when: str, quiet_s: float) -> list[str]:
        """Everything ends within PEACE_MAX_S, and stays so for that long."""
        world = self._world
        world.trace.note(when)
        until_s = world.loop.time() + PEACE_MAX_S
        settled_s: float | None = None
        while True:
            await asyncio.sleep(LOOK_S)
            world.fleet.resume_all(but=world.database.look(checkers.at_work))  # those are for the sagas to resume
            now_s = world.loop.time()
            wrong = checkers.broken_laws(world)
            if wrong:
                return wrong
            left = checkers.unsettled(world)
            if not left:
                settled_s = settled_s or now_s
                if now_s - settled_s >= quiet_s:
                    return await audits.at_peace(world)
            elif set(left) <= set(checkers.passing(world)):
                settled_s = None  # by a command that was late
            elif settled_s is not None and now_s - settled_s > LOOK_S:
                return [f"{when}: it had settled, and then: {reason}" for reason in left]
            if now_s >= until_s:
                return [f"{when}: after {PEACE_MAX_S:.0f} s {reason}" for reason in left]

    async def _all_deleted(self, users: UserWorkload) -> list[str]:
        """Users leave: nothing of them stays, whatever is still on its way from before."""
        world = self._world
        for row in world.database.living():
            await users.delete(row.id)
        wrong = await self._peace("all servers are deleted", 0.0) if self._of_networks is not None else []
        if self._of_networks is not None and not wrong:
            await self._of_networks.remove_all()
        if self._of_volumes is not None and not wrong:
            wrong = await self._peace("servers have left their volumes", 0.0)
            await self._of_volumes.remove_all()
        return wrong or await self._peace("all is deleted", QUIET_S)

    def _enough(self, trouble: Faults) -> list[str]:
        commands = self._world.network.counts["commands"]
        wrong = []
        if commands < COMMANDS_MIN:
            wrong.append(f"only {commands} commands were sent: {COMMANDS_MIN} are wanted of every seed")
        if trouble.kills < KILLS_MIN:
            wrong.append(f"only {trouble.kills} processes were killed: {KILLS_MIN} are wanted of every seed")
        return wrong

    async def _end(self, trouble: Faults, wrong: list[str]) -> Outcome:
        world = self._world
        simulated_s = world.loop.time()
        for reason in wrong:
            world.trace.note(reason)
        ends = world.database.look(_ends)
        await world.end()
        counts: Counter[str] = world.counts + world.network.counts + ends
        counts["transactions"] = world.database.transactions
        counts["transactions refused for load"] = world.database.refused
        return Outcome(
            world.seed,
            self._severity,
            wrong,
            world.trace.digest(),
            simulated_s,
            world.network.counts["commands"],
            trouble.kills,
            dict(sorted(counts.items())),
            world.trace.kept,
        )


def _ends(tx: Tx) -> Counter[str]:
    query = select(sagas.c.kind, sagas.c.status, func.count()).group_by(sagas.c.kind, sagas.c.status)
    return Counter({f"saga {kind} {status}": count for kind, status, count in tx.execute(query)})
