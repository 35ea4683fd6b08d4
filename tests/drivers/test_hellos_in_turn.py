"""Agents that were let in before: when the broker is back they obey at once, and say hello in their turn."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from droveway.domain.model import Guest, GuestState
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import GuestChanged, Hello
from tests.drivers.bus_worlds import broker, control_of, ends, works

pytestmark = pytest.mark.servers
SPREAD_S, SOON_S = 4.0, 2.0


class Latest(SystemChance):
    """Draws the longest pause there is."""

    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.mark.parametrize("is_asked", [False, True], ids=["in its turn", "because control asks"])
async def test_whoever_is_known_obeys_before_it_says_hello(tmp_path: Path, is_asked: bool) -> None:
    with broker(tmp_path / "nats") as one:
        world = one.world()
        async with ends(world) as e:
            e.spread_s = SPREAD_S
            agent = e.agent("h1", bus=BrokerAgentBus(world.link(), Latest(), SystemNames()))
            await e.until(lambda: len(e.welcomes) == 1)
            assert len(e.told(Hello)) == 1
            one.kill()
            await e.until(lambda: control_of(e).trouble != "")
            one.start()
            await works(e)
            agent.notify(GuestChanged("h1", "boot", Guest("i", GuestState.RUNNING)))
            await e.until(lambda: any(isinstance(one, GuestChanged) for one in e.heard))
            assert len(e.told(Hello)) == 1
            began = time.monotonic()
            if is_asked:
                control_of(e)._ask("h1")
            await e.until(lambda: len(e.welcomes) == 2)
            assert (time.monotonic() - began < SOON_S) == is_asked
            await asyncio.sleep(0.6)
            assert len(e.told(Hello)) == 2
