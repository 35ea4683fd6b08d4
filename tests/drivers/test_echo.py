"""An echo finds out what no broker tells: one that hangs, a subscription that it forbids or has forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pamqp.commands import Exchange

from droveway.domain.faults import Unreachable
from droveway.drivers.bus.rabbitmq_link import RabbitSettings
from droveway.drivers.bus.rabbitmq_wire import RabbitWire
from droveway.ports.bus import ControlBus
from tests.drivers.bus_worlds import Ends, broker, control_of, ends, rabbit

pytestmark = pytest.mark.servers


async def connected(e: Ends) -> None:
    await e.until(lambda: control_of(e)._link.is_connected)


async def returns(control: ControlBus) -> bool:
    try:
        await control.echo(0.3)
    except Unreachable as fault:
        assert "did not return it within 0.3 s" in fault.reason
        return False
    return True


async def returns_again(control: ControlBus) -> None:
    """Sooner or later: on a busy machine one that is not kept may take longer than is waited for."""
    async with asyncio.timeout(30):
        while not await returns(control):
            pass


async def test_a_broker_that_hangs_keeps_the_echo(tmp_path: Path) -> None:
    """Long before its pings are missed: with the usual interval of those nothing else would tell for a while."""
    with broker(tmp_path / "nats") as one:
        async with ends(one.world(ping_interval_s=30.0)) as e:
            await connected(e)
            await returns_again(e.control)
            one.freeze()
            try:
                assert not await returns(e.control)
                assert e.control.trouble == ""
            finally:
                one.thaw()
            await returns_again(e.control)


@pytest.mark.parametrize("denied", ["droveway.beat.>", "droveway.beat.*"])
async def test_a_forbidden_subscription_keeps_the_echo(tmp_path: Path, denied: str) -> None:
    (tmp_path / "conf").write_text(f"""authorization {{ users = [
        {{user: control, password: a, permissions: {{subscribe: {{deny: "{denied}"}}}}}}]}}""")
    with broker(tmp_path / "nats", "-c", str(tmp_path / "conf")) as one:
        async with ends(one.world(user="control", password="a")) as e:
            await connected(e)
            assert not await returns(e.control)
            assert e.control.trouble == ""


async def test_each_control_hears_its_own_echo(tmp_path: Path) -> None:
    with broker(tmp_path / "nats") as one:
        async with ends(one.world()) as e, ends(one.world()) as other:
            await connected(e)
            await connected(other)
            for both in [(e.control, other.control)] * 50:
                assert all(await asyncio.gather(*map(returns, both)))
            assert control_of(e).garbage == control_of(other).garbage == 0
            assert e.heard == other.heard == []


@pytest.mark.alone  # what the broker has forgotten is looked for at once
async def test_a_binding_that_the_broker_has_forgotten_is_made_again() -> None:
    """The exchange was deleted, and an agent that was first to come back has made it again, without our bindings."""
    with rabbit() as one:
        async with ends(one.world()) as e, ends(one.world()) as other:
            await connected(e)
            await connected(other)
            wire = control_of(other)._link._wire
            assert isinstance(wire, RabbitWire)
            await wire.call(1, Exchange.Delete(exchange="droveway"), Exchange.DeleteOk)
            await wire.call(1, RabbitSettings().exchange(), Exchange.DeclareOk)
            assert not await returns(e.control)
            assert e.control.trouble == ""
            e.control.renew()
            async with asyncio.timeout(30):
                while e.control.trouble or not await returns(e.control):
                    await asyncio.sleep(0.05)
