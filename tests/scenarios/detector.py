"""Plays scenarios of the failure detector: hosts with services, their heart, a control, and a clock that acts move.

Hosts send heartbeats once a second and the detector looks four times a second. Times are seconds since the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from droveway.control.liveness.observer import LivenessSettings
from droveway.domain.liveness import DIED, LEFT, State
from droveway.ports.bus import AgentDisconnected, Beat, HeartDisconnected, Hello, Notice, Report
from droveway.store.engine.transaction import Store
from droveway.store.fleet import services
from tests.control.hall import COMPUTE, TICK_S, DetectorHarness, HandClock, new_store
from tests.scenarios.text import Act

LATENESS_MS = 3


def _by_number(host: str) -> tuple[int, str]:
    return len(host), host


class _Service:
    """A process, as the heart of its host has it."""

    def __init__(self) -> None:
        self.progress = 0
        self.is_hung = False
        self.ending = 0  # or LEFT, or DIED


class _Host:
    def __init__(self, names: Sequence[str]) -> None:
        self.services = {name: _Service() for name in names}
        self.boot = 1
        self.counter = 0
        self.sends = True  # its heart runs, and what it sends arrives
        self.answers = True  # its agents when they are asked, and its hypervisor


class Detector:
    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._shown: dict[tuple[str, str], State] = {}
        self._input: str | None = None
        self._is_deaf = False

    async def open(self) -> None:
        self._clock = HandClock()
        self._began_s = self._clock.at_s
        self._store: Store = new_store(self._clock)
        self._hall = await DetectorHarness(self._clock, self._store, "one", LivenessSettings()).open()

    async def close(self) -> None:
        await self._store.close()

    # -- time ---------------------------------------------------------------------------------------------------------
    async def on_wait(self, act: Act) -> list[str]:
        """`wait SECONDS`: what the detector concludes meanwhile."""
        shown: list[str] = []
        for number in range(round(float(act.words[0]) / TICK_S)):
            self._clock.at_s += TICK_S
            if number % 4 == 0:
                for name, host in self._hosts.items():
                    if host.sends:
                        self._beat(name, host)
            await self._hall.detector.input.confirm()
            shown += await self._look()
        await self._hall.verdicts._once(self._hall.detector)
        await self._hall.verdicts.refresh(self._hall.detector)
        return shown

    async def on_freeze(self, act: Act) -> list[str]:
        """`freeze SECONDS`: the control is stopped for so long, then goes on."""
        self._clock.at_s += float(act.words[0])
        await self._hall.detector.input.confirm()
        return await self._look()

    async def _look(self) -> list[str]:
        self._hall.detector.look()
        for _ in range(4):
            await asyncio.sleep(0)  # second opinions
        shown, at = [], f"{self._clock.at_s - self._began_s:6.2f}"
        no_input = self._hall.detector.no_input
        if (reason := no_input and no_input.reason) != self._input:
            self._input = reason
            shown.append(f"{at}  no input: {reason}" if reason else f"{at}  input has returned")
        changed: dict[str, list[str]] = {}  # what became of them -> hosts
        for seen in self._hall.observer.observations():
            for name, service in seen.services.items():
                was = self._shown.get((seen.host, name), State.EXPECTED)
                if service.state is not was:
                    self._shown[seen.host, name] = service.state
                    changed.setdefault(f"{name}: {was} -> {service.state}: {service.reason}", []).append(seen.host)
        return shown + [f"{at}  {' '.join(sorted(hosts, key=_by_number))} {text}" for text, hosts in changed.items()]

    # -- hosts --------------------------------------------------------------------------------------------------------
    async def on_host(self, act: Act) -> list[str]:
        """`host NAME [SERVICE …]`: it boots, and each service says hello. `host NAME..N` is NAME1 to NAMEN."""
        first, _, last = act.words[0].partition("..")
        for name in [f"{first}{number}" for number in range(1, int(last) + 1)] if last else [first]:
            self._hosts[name] = _Host(act.words[1:] or (COMPUTE,))
            self._hello(name, *self._hosts[name].services)
        return []

    async def on_boot(self, act: Act) -> list[str]:
        """`boot HOST`: it starts anew, with a heart and its services."""
        for name, host in self._named(act):
            renewed = self._hosts[name] = _Host(tuple(host.services))
            renewed.boot = host.boot + 1
            self._hello(name, *renewed.services)
        return []

    async def on_crash(self, act: Act) -> list[str]:
        """`crash HOST …`: the machine is off. Nothing of it is sent or answers, nor does its hypervisor."""
        for _, host in self._named(act):
            host.sends = host.answers = False
        self._note_reachable()
        return []

    async def on_lose_heartbeats(self, act: Act) -> list[str]:
        """`lose-heartbeats HOST …`: they are lost on their way; its agent answers."""
        for _, host in self._named(act):
            host.sends = False
        return []

    async def on_restore_heartbeats(self, act: Act) -> list[str]:
        for _, host in self._named(act):
            host.sends = True
        return []

    async def on_cut(self, act: Act) -> list[str]:
        """`cut HOST …`: its network fails; it runs on, and counts on."""
        return await self.on_crash(act)

    async def on_mend(self, act: Act) -> list[str]:
        """`mend HOST …`: the network of `cut` is there again."""
        for _, host in self._named(act):
            host.sends = host.answers = True
        self._note_reachable()
        return []

    async def on_kill_heart(self, act: Act) -> list[str]:
        """`kill-heart HOST`: that process is killed, and the bus sees its connection end."""
        for name, host in self._named(act):
            host.sends = False
            self._notice(HeartDisconnected(name, "the connection of its heart ended"))
        return []

    async def on_start_heart(self, act: Act) -> list[str]:
        return await self.on_restore_heartbeats(act)

    async def on_beat(self, act: Act) -> list[str]:
        """`beat HOST …`: one more heartbeat at once; `old` as its last word: the last one arrives again."""
        for name, host in self._named(act):
            if act.words[-1] == "old":
                host.counter -= 1
            self._beat(name, host)
        return []

    # -- services -----------------------------------------------------------------------------------------------------
    async def on_hang(self, act: Act) -> list[str]:
        """`hang HOST [SERVICE]`: its loop does not turn."""
        self._service(act).is_hung = True
        return []

    async def on_continue(self, act: Act) -> list[str]:
        self._service(act).is_hung = False
        return []

    async def on_kill(self, act: Act) -> list[str]:
        """`kill HOST [SERVICE]`: its process dies, and the kernel informs the heart."""
        self._service(act).ending = DIED
        return []

    async def on_stop(self, act: Act) -> list[str]:
        """`stop HOST [SERVICE]`: it ends in good order, and its connection with it."""
        self._service(act).ending = LEFT
        self._notice(AgentDisconnected(act.words[0], "it was stopped", True, self._name(act)))
        return []

    async def on_disconnect(self, act: Act) -> list[str]:
        """`disconnect HOST [SERVICE]`: its connection to the bus ends, and nothing more."""
        self._notice(AgentDisconnected(act.words[0], "its connection ended", False, self._name(act)))
        return []

    async def on_hello(self, act: Act) -> list[str]:
        """`hello HOST [SERVICE]`: a process of that service says hello; it has not joined the heart yet."""
        self._hello(act.words[0], self._name(act))
        return []

    async def on_join(self, act: Act) -> list[str]:
        """`join HOST [SERVICE]`: the process that said hello joins the heart."""
        self._hosts[act.words[0]].services[self._name(act)] = _Service()
        return []

    # -- the control --------------------------------------------------------------------------------------------------
    async def on_deaf(self, act: Act) -> list[str]:
        """`deaf`: nothing reaches this control any more, what it sends itself neither."""
        self._is_deaf, self._hall.bus.echoes = True, False
        self._note_reachable()
        return []

    async def on_hear(self, act: Act) -> list[str]:
        self._is_deaf, self._hall.bus.echoes = False, True
        self._note_reachable()
        return []

    # -- what is shown ------------------------------------------------------------------------------------------------
    async def on_list(self, act: Act) -> list[str]:
        """`list`: as `droveway service list` shows it."""
        alike: dict[str, list[str]] = {}
        for row in await self._store.read(services.on_hosts):
            text = f"{row['binary']}: {'up' if row['is_up'] else 'down'}, {row['state']}: {row['reason']}"
            alike.setdefault(text, []).append(row["host"])
        return [f"{' '.join(sorted(hosts, key=_by_number))} {text}" for text, hosts in sorted(alike.items())]

    async def on_why(self, act: Act) -> list[str]:
        """`why HOST [SERVICE]`: the verdict, its evidence and the advice."""
        found = await self._hall.why(act.words[0], self._name(act))
        verdict = found["verdict"]
        return [
            f"{verdict['state']}: {verdict['reason']}",
            *(f"{one['about']}: {one['reason']}" for one in found["evidence"] if one.get("reason")),
            *(f"-> {one}" for one in found.get("advice", ())),
        ]

    # -- words --------------------------------------------------------------------------------------------------------
    def _named(self, act: Act) -> list[tuple[str, _Host]]:
        return [(name, self._hosts[name]) for name in act.words if name in self._hosts or name != "old"]

    def _name(self, act: Act) -> str:
        return act.words[1] if len(act.words) > 1 else COMPUTE

    def _service(self, act: Act) -> _Service:
        return self._hosts[act.words[0]].services[self._name(act)]

    def _notice(self, notice: Notice) -> None:
        if not self._is_deaf:
            self._hall.observer.on_notice(notice)

    def _hello(self, name: str, *names: str) -> None:
        boot = f"boot-{self._hosts[name].boot}"
        for service in names:
            self._notice(Hello(name, boot, "here", service=service))
        if COMPUTE in names:
            self._notice(Report(name, boot, 1, True, "", None, (), True))
        self._hall.observer.inbox.put_peer_uris({name: f"sim://{name}"})
        self._note_reachable()

    def _note_reachable(self) -> None:
        """No answer reaches a deaf control."""
        names = {name for name, host in self._hosts.items() if host.answers and not self._is_deaf}
        self._hall.bus.answering, self._hall.bus.reachable = names, set(names)

    def _beat(self, name: str, host: _Host) -> None:
        host.counter += 1
        for one in host.services.values():
            one.progress += 0 if one.is_hung or one.ending else 1
        of_all: Callable[[Callable[[_Service], int]], tuple[int, ...]] = lambda get: tuple(  # noqa: E731
            get(one) for one in host.services.values()
        )
        self._notice(
            Beat(
                name,
                f"boot-{host.boot}",
                host.counter,
                1,
                tuple(host.services),
                of_all(lambda one: one.progress),
                of_all(lambda one: one.ending or LATENESS_MS),
            )
        )
