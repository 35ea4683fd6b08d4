"""What goes wrong, how often, and how it ends. The seed draws the severity: some worlds are calm, some are rough."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from droveway.domain.faults import Busy
from droveway.drivers.hypervisor.simulated import fleet
from droveway.simulation import other_release
from droveway.simulation.machines import LIVENESS, ControlProcess, Host
from droveway.simulation.severities import NEVER_S, Severity
from droveway.simulation.truth import CUT_OFF
from droveway.simulation.world import World
from droveway.store.work import sagas

HOLD_ENDS_S = LIVENESS.service_down_time_s + LIVENESS.storm_hold_time_s  # and a silent host is declared down
DAY_US = 24 * 3600 * 1_000_000


class Faults:
    """Breaks the world until `stop`; then mends everything."""

    def __init__(self, world: World, severity: Severity) -> None:
        self._world, self._severity = world, severity
        self._stopped = False
        self.kills = 0
        network, database = world.network, world.database
        network.loss, network.double, network.late = severity.loss, severity.double, severity.late
        database.busy, database.slow_s = severity.busy, severity.slow_s
        world.fleet.faults = severity.hypervisor
        happenings: tuple[tuple[float, Callable[[], Awaitable[None] | None]], ...] = (
            (severity.kill_control_s, self._kill_control),
            (severity.kill_agent_s, self._kill_agent),
            (severity.steal_s, self._steal),
            (severity.crash_host_s, self._crash_host),
            (severity.hypervisor_down_s, self._hypervisor_down),
            (severity.cut_s, self._cut),
            (severity.crash_guest_s, self._crash_guest),
            (severity.hang_agent_s, self._hang_agent),
            (severity.end_agent_s, self._end_agent),
            (severity.kill_heart_s, self._kill_heart),
            (severity.hang_heart_s, self._hang_heart),
            (severity.silence_s, self._silence),
            (severity.deafen_s, self._deafen),
            (severity.stop_control_s, self._stop_control),
            (severity.step_clock_s, self.step_clocks),
            (severity.trouble_s, self._trouble),
            (severity.hang_store_s, self._hang_store),
            (severity.cut_off_s, self._cut_off),
            (severity.misconfigure_s, self._misconfigure),
        )
        if world.networks is not None:
            happenings += (
                (severity.fail_networks_s, self._fail_networks),
                (severity.harm_networks_s, self._harm_networks),
            )
        if world.volumes is not None:
            happenings += ((severity.fail_pool_s, self._fail_pool),)
        self._tasks = [world.loop.create_task(self._happen(mean_s, what)) for mean_s, what in happenings]

    async def _happen(self, mean_s: float, what: Callable[[], Awaitable[None] | None]) -> None:
        while not self._stopped and mean_s < NEVER_S:
            await asyncio.sleep(self._world.rng.expovariate(1.0 / mean_s))
            if not self._stopped:
                mending = what()
                if mending is not None:
                    await mending

    def _count(self, what: str, detail: str) -> None:
        self._world.counts[f"fault: {what}"] += 1
        self._world.trace.note(f"fault: {what} {detail}")

    # -- processes ----------------------------------------------------------------------------------------------------
    async def _kill_control(self) -> None:
        world = self._world
        if not world.controls:
            return
        name = world.rng.choice(list(world.controls))
        self.kills += 1
        self._count("control killed", name)
        world.kill_control(name)
        # Mostly its supervisor is quick; sometimes the others notice that its lease has ended.
        await asyncio.sleep(world.rng.choice([0.05, 1.0, 3.0, 30.0]))
        world.start_control(name)

    async def _kill_agent(self) -> None:
        world = self._world
        agents = self._agents()
        if not agents:
            return
        host, service = world.rng.choice(agents)
        self.kills += 1
        self._count(f"{service} killed", host.name)
        host.kill_agent(service)
        await asyncio.sleep(world.rng.choice([0.05, 1.0, 5.0, 20.0]))
        host.start_agent(service)

    def _agents(self) -> list[tuple[Host, str]]:
        """What runs now, each service by itself."""
        return [(host, service) for host in self._world.hosts.values() for service in host.agents]

    async def _end_agent(self) -> None:
        """An operator stops it for a while."""
        world = self._world
        agents = self._agents()
        if agents:
            host, service = world.rng.choice(agents)
            self._count(f"{service} ended in good order", host.name)
            await host.end_agent(service)
            await asyncio.sleep(world.rng.choice([1.0, 10.0]))
            host.start_agent(service)

    async def _hang_agent(self) -> None:
        """SIGSTOP: its heart beats, commands wait and are obeyed late."""
        world = self._world
        running = [host.agents[service] for host, service in self._agents()]
        agents = [agent for agent in running if not agent.is_stopped]
        if agents:
            agent = world.rng.choice(agents)
            self._count(f"{agent.service} hangs", agent.name)
            agent.stop()
            await asyncio.sleep(world.rng.choice([1.0, 8.0, 9.5, 20.0, 40.0]) * world.rng.uniform(0.8, 1.0))
            agent.go_on()

    async def _kill_heart(self) -> None:
        world = self._world
        hosts = [host for host in world.hosts.values() if host.heart is not None]
        if hosts:
            host = world.rng.choice(hosts)
            self._count("heart killed", host.name)
            host.kill_heart()
            await asyncio.sleep(world.rng.uniform(0.05, 5.0))
            host.start_heart()

    async def _hang_heart(self) -> None:
        world = self._world
        hosts = [host for host in world.hosts.values() if host.heart is not None and not host.heart.is_stopped]
        if hosts:
            host = world.rng.choice(hosts)
            heart = host.heart
            assert heart is not None, "it was chosen for having one"
            self._count("heart hangs", host.name)
            heart.stop()
            await asyncio.sleep(world.rng.uniform(1.0, 30.0))
            heart.go_on()

    async def _stop_control(self) -> None:
        """SIGSTOP of the whole process, the observer included."""
        world = self._world
        controls = [control for control in world.controls.values() if not control.is_stopped]
        if controls:
            control = world.rng.choice(controls)
            self._count("control stopped", control.name)
            control.stop()
            await asyncio.sleep(world.rng.uniform(5.0, 20.0))
            control.go_on()

    async def _steal(self) -> None:
        """Another control takes a saga over although its runner lives."""
        world = self._world
        rows = [row for row in world.database.look(sagas.open_sagas) if row["request_id"] != other_release.REQUEST]
        controls = [c for c in world.controls.values() if c.control.runner is not None]
        if not rows or not controls:
            return
        thief, row = world.rng.choice(controls), world.rng.choice(rows)
        self._count("saga robbed", f"{row['id']} from {row['owner']} by {thief.name}")
        thief.spawn(_rob(thief, row["id"]))

    # -- machines -----------------------------------------------------------------------------------------------------
    async def _crash_host(self) -> None:
        world = self._world
        hosts = [host for host in world.hosts.values() if host.is_on]
        if len(hosts) < 2:
            return
        host = world.rng.choice(hosts)
        self._count("host crashed", host.name)
        host.crash()
        await asyncio.sleep(world.rng.choice([2.0, 10.0, 40.0]))
        world.trace.note(f"{host.name} boots")
        host.boot()

    async def _hypervisor_down(self) -> None:
        world = self._world
        name = world.rng.choice(list(world.hosts))
        self._count("hypervisor down", name)
        world.fleet.stop_hypervisor(name)
        await asyncio.sleep(world.rng.choice([1.0, 5.0, 25.0]))
        world.fleet.return_hypervisor(name)

    async def _crash_guest(self) -> None:
        world = self._world
        alive = sorted(world.fleet.lives_on.items())
        if alive:
            instance_id, name = world.rng.choice(alive)
            self._count("guest crashed", f"{instance_id} on {name}")
            world.crashed_guests.add(instance_id)
            world.fleet.crash_guest(name, instance_id)

    async def _hang_store(self) -> None:
        """The server of the instance store does not answer this host, or any."""
        world = self._world
        names = list(world.hosts) if world.rng.random() < 0.2 else [world.rng.choice(list(world.hosts))]
        self._count("store hangs", " ".join(names))
        for name in names:
            world.fleet.mounts.hang(name)
        await asyncio.sleep(world.rng.choice([2.0, 15.0, 60.0]) * world.rng.uniform(0.8, 1.5))
        for name in names:
            world.fleet.mounts.answer(name)

    async def _cut(self) -> None:
        world = self._world
        control, host = world.rng.choice(world.control_names), world.rng.choice(list(world.hosts))
        self._count("link cut", f"{control} {host}")
        world.network.cut(control, host, silently=world.rng.random() < 0.5)
        await asyncio.sleep(world.rng.choice([1.0, 10.0, 30.0]))
        world.network.heal(control, host)

    async def _silence(self) -> None:
        world = self._world
        self._count("all beats lost", "")
        world.network.quieten(is_silent=True)
        await asyncio.sleep(world.rng.uniform(1.0, 4.0))
        world.network.quieten(is_silent=False)

    async def _deafen(self) -> None:
        """Mostly the failure detector; sometimes all controls, for longer than a hold lasts: a broker that hangs."""
        world = self._world
        if world.rng.random() < 0.2:
            self._count("all controls without input", "")
            for name in world.control_names:
                world.network.deafen(name, has_broker=False)
            await asyncio.sleep(world.rng.uniform(1.0, 2.0) * HOLD_ENDS_S)
            for name in world.control_names:
                world.network.undeafen(name)
            return
        detectors = [name for name, one in world.controls.items() if one.control.detector.is_active]
        control = world.rng.choice(detectors if detectors and world.rng.random() < 0.9 else world.control_names)
        for _ in range(world.rng.choice([1, 1, 2, 3])):  # and again, before much was heard
            has_broker = world.rng.random() < 0.4
            self._count("control without input", f"{control}{', and has a broker' if has_broker else ''}")
            world.network.deafen(control, has_broker=has_broker)
            await asyncio.sleep(world.rng.uniform(4.0, 25.0))
            world.network.undeafen(control)
            await asyncio.sleep(world.rng.uniform(0.05, 4.0))

    async def _trouble(self) -> None:
        """The broker is away, for one control or for all."""
        world = self._world
        names = [world.rng.choice(world.control_names)] if world.rng.random() < 0.5 else world.control_names
        self._count("broker away", " ".join(names))
        for name in names:
            world.network.trouble(name, "the simulated broker is away")
        await asyncio.sleep(world.rng.uniform(1.0, 25.0))
        for name in names:
            world.network.mend(name)

    async def _misconfigure(self) -> None:
        """A control is started again with another prefix: it has a broker, and no agent is on it."""
        world = self._world
        name = world.rng.choice(world.control_names)
        if name in world.network.apart or name not in world.controls:
            return
        self._count("control misconfigured", name)
        world.kill_control(name)
        world.network.deafen(name, has_broker=True)
        world.start_control(name)
        await asyncio.sleep(world.rng.uniform(20.0, 60.0))
        world.kill_control(name)
        world.network.undeafen(name)
        world.start_control(name)

    async def _cut_off(self) -> None:
        """A host and the hypervisors of the others cannot reach each other; the bus takes another way."""
        world = self._world
        host = world.rng.choice(list(world.hosts))
        self._count("host cut off from the others", host)
        world.fleet.cut_off.add(host)
        world.truth.begin(CUT_OFF, host)
        await asyncio.sleep(world.rng.uniform(5.0, 30.0))
        world.fleet.cut_off.discard(host)
        world.truth.end(CUT_OFF, host)

    def step_clocks(self) -> None:
        """Of the wall clock; no monotonic clock is changed."""
        world = self._world
        self._count("clocks step", "")
        clocks = [host.clock for host in world.hosts.values()] + [one.clock for one in world.controls.values()]
        for clock in clocks:
            clock.skew_us = int(world.rng.uniform(-DAY_US, DAY_US))

    # -- networks of guests -------------------------------------------------------------------------------------------
    async def _fail_networks(self) -> None:
        """A host can make no network for a while: a program or a right is missing."""
        assert self._world.networks is not None, "it has networks"
        place = self._world.networks.any_host()
        self._count("networks fail", place.host)
        place.cannot = "the nftables library of this host is gone"
        await asyncio.sleep(self._world.networks.rng.uniform(1.0, 20.0))
        place.cannot = ""

    def _harm_networks(self) -> None:
        """An operator removes by hand what the agent has made."""
        assert self._world.networks is not None, "it has networks"
        self._count("networks harmed by hand", self._world.networks.harm())

    async def _fail_pool(self) -> None:
        """A backend of volumes does not answer for a while, hangs, or refuses everything."""
        assert self._world.volumes is not None, "it has volumes"
        rng, pool = self._world.volumes.rng, self._world.volumes.any_pool()
        how = rng.choice(["is away", "hangs", "refuses"])
        self._count(f"pool {how}", pool.name)
        if how == "is away":
            pool.down = "the imagined pool does not answer"
        elif how == "refuses":
            pool.refuses = "the imagined pool takes nothing"
        else:
            pool.hangs.clear()
        await asyncio.sleep(rng.uniform(0.5, 15.0))
        pool.down = pool.refuses = ""
        pool.hangs.set()

    # -- peace --------------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Nothing breaks any more; what is broken is mended; what is under way is as it is."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        world = self._world
        world.network.calm()
        for name in sorted(world.fleet.cut_off):
            world.fleet.cut_off.discard(name)
            world.truth.end(CUT_OFF, name)
        world.database.busy, world.may_be_busy = 0.0, False
        world.fleet.faults = fleet.Faults()
        if world.networks is not None:
            world.networks.mend()
        if world.volumes is not None:
            world.volumes.mend()
        for host in world.hosts.values():
            world.fleet.return_hypervisor(host.name)
            world.fleet.mounts.answer(host.name)
            host.boot()
            for agent in host.agents.values():
                agent.go_on()
            if host.heart is not None:
                host.heart.go_on()
        for control in world.controls.values():
            control.go_on()
        for name in world.control_names:
            world.start_control(name)


async def _rob(thief: ControlProcess, saga_id: str) -> None:
    runner = thief.control.runner
    if runner is not None:
        with contextlib.suppress(Busy):
            await runner.steal(saga_id)
