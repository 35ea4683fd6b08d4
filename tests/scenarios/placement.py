"""Plays scenarios of placement: hosts with what they have, and requests that hold what they get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from droveway.domain.placement import GroupPolicy, GroupRequest, HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import place, reason
from droveway.scheduler.summaries import to_tenants
from tests.scenarios.text import Act

SEED = 1  # of the order of hosts that are equally good


class Placement:
    def __init__(self) -> None:
        self._columns = Columns()
        self._settings = PlacementSettings()
        self._groups: dict[str, GroupRequest] = {}

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def on_host(self, act: Act) -> list[str]:
        """`host NAME vcpus=N memory_mb=N disk_gb=N …`: any field of HostFacts. `host NAME..N` is NAME1 to NAMEN."""
        first, _, last = act.words[0].partition("..")
        for name in [f"{first}{number}" for number in range(1, int(last) + 1)] if last else [first]:
            start = {"id": len(self._columns) + 1, "name": name, "vcpus": 8, "memory_mb": 16_384, "disk_gb": 100}
            self._columns.put(_fields(HostFacts, start | act.options))
        return []

    async def on_change(self, act: Act) -> list[str]:
        """`change NAME key=value …`; a space in a value is written as `_`."""
        was = msgspec.structs.asdict(self._columns.facts(act.words[0]))
        self._columns.put(_fields(HostFacts, was | {key: _text(value) for key, value in act.options.items()}))
        return []

    async def on_settings(self, act: Act) -> list[str]:
        self._settings = _fields(PlacementSettings, act.options)
        return []

    async def on_group(self, act: Act) -> list[str]:
        """`group NAME POLICY`"""
        self._groups[act.words[0]] = GroupRequest(act.words[0], GroupPolicy(act.words[1]))
        return []

    async def on_place(self, act: Act) -> list[str]:
        """`place vcpus=N ram_mb=N disk_gb=N … [group=NAME]`: what is chosen, and why each other host is not."""
        options = dict(act.options)
        group = options.pop("group", "")
        fields: dict[str, Any] = {"vcpus": 1, "ram_mb": 512, "disk_gb": 1} | options
        ask = _fields(PlacementRequest, fields)
        if group:
            ask = msgspec.structs.replace(ask, group=self._groups[group])
        plan = place(self._columns, ask, self._settings, SEED)
        if not plan.ranked:
            return [reason(plan), f"to its user: {to_tenants(plan)}"]
        chosen = plan.ranked[0].name
        self._hold(chosen, ask, group)
        shown = [f"{chosen}, of {plan.fitting} that fit"]
        return shown + [f"{fell.rule}: {text}" for fell in plan.fallen for text in _reasons(fell.nearest)]

    def _hold(self, name: str, ask: PlacementRequest, group: str) -> None:
        was = self._columns.facts(name)
        self._columns.put(
            msgspec.structs.replace(
                was,
                vcpus_used=was.vcpus_used + ask.vcpus,
                ram_mb_used=was.ram_mb_used + ask.ram_mb,
                disk_gb_used=was.disk_gb_used + ask.disk_gb,
                instances=was.instances + 1,
                claims=was.claims + 1,
            )
        )
        if group:
            one = self._groups[group]
            members = one.on_hosts | {name: one.on_hosts.get(name, 0) + 1}
            self._groups[group] = msgspec.structs.replace(one, on_hosts=members)


def _reasons(nearest: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"{host}: {why}" for host, why in nearest]


def _text(value: str) -> str:
    return value.replace("_", " ")


def _fields(kind: type, given: Mapping[str, Any]) -> Any:
    """Words as the fields of that type. Raises ValueError."""
    known = {one.name for one in msgspec.structs.fields(kind)}
    if unknown := given.keys() - known:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    return msgspec.convert(dict(given), kind, strict=False)
