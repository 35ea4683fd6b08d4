"""Plays scenarios of sagas: one control, two simulated hosts behind real agents, and a break at one command.

The host on which the guest is started is shown as `a` and the other one as `b`, ids and times of a clock as `…`.
"""

from __future__ import annotations

import re

from droveway.domain.model import GuestState, SagaKind, of_saga
from droveway.store.compute import instances
from droveway.store.work import events, sagas
from tests.control.world import Break, World
from tests.scenarios.text import Act

BREAKS = {one.name.lower().replace("_", "-"): one for one in Break}
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|\b[0-9a-f]{8}\b")
SECONDS = re.compile(r"\b\d+(?:\.\d+)? s\b")


class Sagas:
    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._played: set[str] = set()

    async def open(self) -> None:
        self._world = World()
        await self._world.open()
        self._instance = ""

    async def close(self) -> None:
        await self._world.close()

    # -- what breaks --------------------------------------------------------------------------------------------------
    async def on_break(self, act: Act) -> list[str]:
        """`break WHAT at=N`: the command number N of the next saga meets it; WHAT is one of BREAKS."""
        if act.words[0] not in BREAKS:
            raise ValueError(f"nothing breaks like that; there are {', '.join(sorted(BREAKS))}")
        self._world.breaks, self._world.at = BREAKS[act.words[0]], int(act.options["at"])
        return []

    async def on_lose(self, act: Act) -> list[str]:
        """`lose HOST from=N`: it does not answer from the command number N of the next saga on."""
        host = {shown: name for name, shown in self._names.items()}[act.words[0]]
        self._world.gone_from = {host: int(act.options["from"])}
        return []

    async def on_suspend(self, act: Act) -> list[str]:
        """`suspend`: an operator pauses the guest at its hypervisor."""
        place = (await self._row())["host"]
        domain = self._world.fleet.hosts[place].domains[self._instance]
        domain.state, domain.suspended = GuestState.PAUSED, True
        return []

    # -- sagas --------------------------------------------------------------------------------------------------------
    async def on_boot(self, act: Act) -> list[str]:
        """`boot`: a server is made."""
        self._world.commands.clear()
        self._instance = await self._world.create()
        host = (await self._row())["host"]
        if host is not None:
            self._names = {host: "a", "h2" if host == "h1" else "h1": "b"}
        return await self._shown()

    async def on_do(self, act: Act) -> list[str]:
        """`do KIND`: a saga about that server, to its end."""
        self._world.commands.clear()
        kind = SagaKind(act.words[0])
        await self._world.store.run(instances.intend, self._instance, kind, {})
        await self._world.quiet()
        return await self._shown()

    async def on_report(self, act: Act) -> list[str]:
        """`report`: every host reports; then rows and hosts agree, or the scenario fails."""
        self._world.at, self._world.gone_from = 0, {}
        await self._world.report()
        await self._world.check(self._instance)
        return ["rows and hosts agree", *await self._place()]

    # -- what is shown ------------------------------------------------------------------------------------------------
    async def _shown(self) -> list[str]:
        world = self._world
        commands = ", ".join(f"{number} {verb} on {host}" for number, (host, verb) in enumerate(world.commands, 1))
        shown = [f"commands: {commands or 'none'}"]
        for saga in reversed(await world.store.read(sagas.listing, limit=100, only_open=False)):
            if saga["id"] in self._played:
                continue
            self._played.add(saga["id"])
            found = await world.store.read(events.of_subject, of_saga(saga["id"]))
            ticks = [
                f"{one['mark']} {one['step']}{': ' if one.get('text') else ''}{one.get('text', '')}"
                for event in found
                for one in event["body"].get("ticks", ())
            ]
            shown += [*dict.fromkeys(map(self._plain, ticks)), f"{saga['kind']}: {saga['status']}"]
        world.at, world.breaks = 0, None
        return [self._plain(one) for one in shown] + await self._place()

    async def _place(self) -> list[str]:
        row = await self._row()
        running = await self._world.runs_on_others(self._instance, "")
        text = f"server: {row['vm_state']} on {row['host'] or 'no host'}; runs on {', '.join(running) or 'no host'}"
        return [self._plain(text)]

    async def _row(self) -> instances.InstanceRow:
        return await self._world.store.read(instances.get, self._instance, None, deleted=True)

    def _plain(self, text: str) -> str:
        for name, shown in self._names.items():
            text = re.sub(rf"\b{name}\b", shown, text)
        return SECONDS.sub("… s", ID.sub("…", text))
