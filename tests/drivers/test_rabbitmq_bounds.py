"""Who may enter a RabbitMQ broker, and what bounds hold there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from droveway.domain.faults import Unreachable, WrongConfiguration
from droveway.domain.model import Guest, GuestState, of_instance
from droveway.drivers.bus.broker_messages import HelloFrom, encode
from droveway.drivers.bus.rabbitmq_link import QUEUE_MAX_BYTES, RabbitLink, RabbitSettings
from droveway.drivers.clock import SystemChance
from droveway.ports.bus import MAX_MESSAGE_BYTES, Beat, Command, GuestChanged, Hello, ReadConsole, Report
from lab import servers
from tests.drivers.bus_worlds import (
    USERS,
    Rabbit,
    RabbitWorld,
    Stranger,
    control_of,
    ends,
    filled,
    prefix,
    rabbit,
    ready,
)
from tests.drivers.test_nats_bus import authority, memory_mib, signed, works

pytestmark = pytest.mark.servers
ASK = Command(of_instance("i"), 1, ReadConsole())


@pytest.fixture(scope="module")
def shared(rabbit_that_stays: Rabbit) -> Rabbit:
    return ready(rabbit_that_stays)


def memory_of_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


# -- who may enter ----------------------------------------------------------------------------------------------------
async def test_wrong_password_and_what_may_not_be_entered(shared: Rabbit) -> None:
    for changes, reason in (
        ({"user": "outside"}, "wrong rabbitmq.virtual_host.*access to vhost '/' refused for user 'outside'"),
        ({"virtual_host": "none"}, "wrong rabbitmq.virtual_host.*vhost none not found"),
        ({"user": "little"}, "ACCESS_REFUSED.*exchange 'droveway'.*refused for user 'little'"),
    ):
        async with ends(shared.world(**{"user": "mended", "password": "secret", **changes})) as e:
            await e.until(lambda e=e, s=reason: bool(re.search(s, control_of(e).trouble)))
    with capture_logs() as logs:
        async with ends(shared.world(user="mended", password="guessed")) as e:
            e.agent("h1")
            await e.until(lambda: "wrong rabbitmq.user or rabbitmq.password" in control_of(e).trouble)
            with pytest.raises(Unreachable, match=r"wrong rabbitmq.user or rabbitmq.password"):
                await e.control.command("h1", ASK, 60)
            await asyncio.sleep(0.5)
            assert len([line for line in logs if "rabbitmq.password" in line.get("because", "")]) == 2
            assert "guessed" not in str(logs)
            await asyncio.to_thread(shared.stop)
            shared.node.configure(users=USERS | {"mended": ("guessed", ".*")})
            shared.start(wait=False)  # not in a thread of this loop: with that it would end
            await asyncio.to_thread(shared.node.wait)
            await works(e)


async def test_tls(tmp_path: Path) -> None:
    ca, other_ca = authority(tmp_path / "ca"), authority(tmp_path / "other")
    cert, key = signed(tmp_path / "broker", ca)
    own_cert, own_key = signed(tmp_path / "own", ca)
    own = {"tls_cert": str(own_cert), "tls_key": str(own_key)}

    with rabbit(tls=(ca[0], cert, key)) as one:
        async with ends(one.world(tls_ca=str(ca[0]), **own)) as e:
            e.agent("h1")
            await works(e)
        for world, reason in (
            (one.world(tls_ca=str(other_ca[0]), **own), "TLS with the broker"),
            (one.world(tls_ca=str(ca[0])), f"the broker at {one.url}"),
        ):
            async with ends(world) as e:
                await e.until(lambda e=e: "made yet" not in control_of(e).trouble)
                assert reason in control_of(e).trouble


async def test_tls_that_is_demanded_is_not_done_without(shared: Rabbit, tmp_path: Path) -> None:
    ca = authority(tmp_path / "ca")
    async with ends(shared.world(tls_ca=str(ca[0]))) as e:
        await e.until(lambda: "made yet" not in control_of(e).trouble)
        assert shared.url in control_of(e).trouble


async def test_what_listens_is_no_rabbitmq(tmp_path: Path) -> None:
    if servers.obstacle("nats"):
        pytest.skip("nats is the other one")
    with servers.nats(tmp_path) as nats:
        port = nats.port
        async with ends(RabbitWorld(RabbitSettings((f"amqp://127.0.0.1:{port}",)))) as e:
            await e.until(lambda: "does not speak AMQP" in control_of(e).trouble)


def test_wrong_settings_do_not_start(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for settings, reason in (
        (RabbitSettings(()), "rabbitmq.servers is empty"),
        (RabbitSettings(("http://host:1",)), "must be amqp://HOST:PORT"),
        (RabbitSettings(("amqp://host:99999",)), "must be amqp://HOST:PORT"),
        (RabbitSettings(("amqp://host/vhost",)), "must be amqp://HOST:PORT"),
        (RabbitSettings(("amqp://a:b@host:5672",)), "keys of their own"),
        (RabbitSettings(prefix="a.b"), "rabbitmq.prefix"),
        (RabbitSettings(prefix="elevenbytes"), "1 to 10"),
        (RabbitSettings(user=""), "must not be empty"),
        (RabbitSettings(virtual_host=""), "virtual_host"),
        (RabbitSettings(ping_interval_s=0), "above 0"),
        (RabbitSettings(tls_cert="c"), "go together"),
        (RabbitSettings(tls_ca="/nowhere"), "no such file"),
        (RabbitSettings(tls_ca=str(tmp_path / "empty")), "must be PEM"),
    ):
        with pytest.raises(WrongConfiguration, match=reason):
            RabbitLink(settings, SystemChance())


# -- bounds -----------------------------------------------------------------------------------------------------------
FLOOD_BYTES = 1 << 30


async def test_a_control_that_does_not_read_costs_nobody_memory(shared: Rabbit) -> None:
    """The queue drops its oldest; control, once it reads again, hears what is young."""
    p = prefix("flood")
    # What waits, what is on its way without an acknowledgement, and what the broker's own memory holds twice.
    most_mib = 2 * (QUEUE_MAX_BYTES / (1 << 20) + 100) + 100
    assert 2 * most_mib < FLOOD_BYTES / (1 << 20)

    async def flood(stranger: Stranger, subject: str) -> None:
        payload = encode(filled(200_000))
        for _ in range(FLOOD_BYTES // len(payload)):
            await stranger.say(subject, payload)

    async with ends(shared.world(prefix=p)) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        subject = f"{p}.notice.report.h1.{control_of(e)._agents.of('h1')['nova-compute'].id}"
        wire = control_of(e)._link._wire
        assert wire is not None
        wire._transport.pause_reading()
        wire._pings = -1_000  # it is this end that does not look
        own_mib, highest_mib = memory_mib(), memory_of_mib(shared.node.pid)
        before_mib = highest_mib
        async with Stranger(shared, p) as stranger:
            flooding = asyncio.create_task(flood(stranger, subject))
            while not flooding.done():
                await asyncio.sleep(0.1)
                highest_mib = max(highest_mib, memory_of_mib(shared.node.pid))
            await flooding
        print(f"broker {before_mib:.0f} -> {highest_mib:.0f} MiB, own {own_mib:.0f} -> {memory_mib():.0f} MiB")
        assert memory_mib() - own_mib < 24
        assert highest_mib - before_mib < most_mib
        e.heard.clear()
        wire._transport.resume_reading()
        await works(e)
        assert 0 < len(e.told(Report)) < 2_000
        assert memory_mib() - own_mib < 24 + len(e.told(Report)) * 0.25


async def test_messages_up_to_the_bound_arrive(shared: Rabbit) -> None:
    world = shared.world(prefix=prefix("bound"))
    async with ends(world) as e:
        link = world.link()
        agent = e.agent("h1", bus=world.agent(link))
        await e.until(lambda: bool(e.welcomes))
        for size in (1 << 17, MAX_MESSAGE_BYTES - 200, MAX_MESSAGE_BYTES + 200):
            agent.notify(filled(size, size))
        agent.notify(Beat("h1", "boot", 1))
        await e.until(lambda: bool(e.told(Beat)))
        assert [one.sequence for one in e.told(Report)] == [1 << 17, MAX_MESSAGE_BYTES - 200]  # type: ignore[union-attr]
        assert link.oversized == 1
        async with Stranger(shared, world.settings.prefix) as stranger:
            assert stranger.link._wire is not None
            stranger.link._wire.publish(f"{world.settings.prefix}.beat.h1", b"x" * (2 * MAX_MESSAGE_BYTES), "")
            await stranger.say(f"{world.settings.prefix}.beat.h1", b"")
            await e.until(lambda: control_of(e).garbage == 1)  # the one without a byte; the other was not kept
        await works(e)


async def test_the_longest_name_fits_and_what_is_longer_is_said(shared: Rabbit) -> None:
    p, longest = "0123456789", "." * 64
    with capture_logs() as logs:
        async with ends(shared.world(prefix=p)) as e, Stranger(shared, p) as stranger:
            agent = e.agent(longest)
            await e.until(lambda: bool(e.welcomes))
            agent.notify(GuestChanged(longest, "boot", Guest("i", GuestState.RUNNING)))
            await e.until(lambda: bool(e.told(GuestChanged, longest)))
            await stranger.say(f"{p}.hello.h1", encode(HelloFrom("a" * 250, Hello("h1", "boot", "x"))))
            await e.until(lambda: control_of(e).garbage == 1)
            assert not stranger.link.publish("x" * 256, b"")
            assert stranger.link.oversized == 1
            await works(e, longest)
    assert any("at most 255 bytes" in line.get("because", "") for line in logs)
