"""Requests that wait for room although there is some, because it is not for them: each change looks like theirs."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from droveway.control.scheduling import placer as placing
from droveway.domain.model import SagaKind, of_instance
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.work import sagas
from tests.control.test_placing import add_group
from tests.control.test_placing_sagas import WAITS, WHOLE, ask, blocked, row_of
from tests.control.world import TINY, World, world

PATIENT = msgspec.structs.replace(WAITS, retry_s=0.5, retry_max_s=0.5)


async def member(w: World, group: str) -> str:
    return await w.store.run(instances.create, NewInstance("p", "u", "g", "g", TINY, None, server_group_id=group))


async def test_one_that_is_woken_in_vain_rests_and_is_woken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "PAUSE_S", 0.005)
    async with world(PATIENT) as w:
        group = await w.store.run(add_group, "anti-affinity")
        first, _ = await member(w, group), await member(w, group)
        await w.quiet()
        third = await member(w, group)
        assert "anti-affinity" in await blocked(w, third)
        choose, chosen = w.control.placer.choose, []

        def counted(tx: Tx, ask: Any) -> Any:
            chosen.append(ask)
            return choose(tx, ask)

        monkeypatch.setattr(w.control.placer, "choose", counted)
        began_s = w.clock.monotonic_s()
        for _ in range(40):
            await w.store.run(hosts.touch, "h1", "h2")
            await asyncio.sleep(0.01)
        tries = 1 + math.ceil((w.clock.monotonic_s() - began_s) / PATIENT.retry_s)
        assert len(chosen) <= 2 * tries  # what is refused in a transaction of several is asked once more, alone
        await w.store.run(instances.intend, first, SagaKind.DELETE, {})
        await w.quiet()
        assert (await row_of(w, third))["vm_state"] == "active"
        saga = await w.store.read(sagas.last_of, of_instance(third), SagaKind.BOOT)
        assert saga is not None and saga["status"] == "done"


async def test_one_that_has_just_begun_to_wait_does_not_rest() -> None:
    async with world(msgspec.structs.replace(WAITS, retry_s=30.0, retry_max_s=30.0)) as w:
        first, _ = await ask(w, WHOLE), await ask(w, WHOLE)
        await w.quiet()
        third = await ask(w, WHOLE)
        await blocked(w, third)
        await w.store.run(instances.intend, first, SagaKind.DELETE, {})
        await w.quiet()
        assert (await row_of(w, third))["vm_state"] == "active"


async def test_one_that_is_woken_in_vain_lets_the_next_have_the_room() -> None:
    async with world(PATIENT) as w:
        group = await w.store.run(add_group, "anti-affinity")
        rest = msgspec.structs.replace(WHOLE, ram_mb=WHOLE.ram_mb - TINY.ram_mb)
        for _ in range(2):
            await member(w, group)
        await w.quiet()
        big, _ = await ask(w, rest), await ask(w, rest)
        await w.quiet()
        third = await member(w, group)
        await blocked(w, third)
        other = await ask(w, rest)
        await blocked(w, other)
        await w.store.run(instances.intend, big, SagaKind.DELETE, {})
        async with asyncio.timeout(30):
            while (await row_of(w, other))["vm_state"] != "active":
                await asyncio.sleep(0.01)
        assert (await row_of(w, third))["vm_state"] == "building"
