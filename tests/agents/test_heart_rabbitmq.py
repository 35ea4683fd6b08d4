"""The heart over RabbitMQ: a password, TLS, and a broker that goes or no longer answers."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from droveway.agents.heart.links import now_s
from droveway.agents.heart.process import Settings
from droveway.drivers.bus import beats
from droveway.process.heart import settings
from lab.processes import wait_for
from tests.agents.heart_worlds import (
    INTERVAL_S,
    SOON_S,
    HeartDirectory,
    RecordingControlBus,
    died,
    has,
    play,
    signalled,
)
from tests.drivers.bus_worlds import Rabbit, prefix, rabbit, ready
from tests.drivers.test_nats_bus import authority, signed

pytestmark = pytest.mark.servers
TOLD_WITHIN_S = 0.1
SILENT_S = 9.0  # longer than three pings take


@pytest.fixture
def shared(rabbit_that_stays: Rabbit) -> Rabbit:
    return ready(rabbit_that_stays)


def with_a_password(home: Path, one: Rabbit, user: str, password: str) -> HeartDirectory:
    """The first server is none; either may be tried first."""
    home.mkdir()
    return HeartDirectory(
        home,
        f'bus = "rabbitmq"\n[rabbitmq]\nprefix = "{prefix("heart")}"\nuser = "{user}"\npassword = "{password}"\n'
        f'servers = ["amqp://127.0.0.1:1", "{one.url}"]',
    )


@pytest.mark.alone
def test_a_password_and_a_death_that_is_told_at_once(shared: Rabbit, tmp_path: Path) -> None:
    place = with_a_password(tmp_path / "me", shared, "me", "secret")

    async def story(recorder: RecordingControlBus) -> None:
        heart, member = place.heart(), place.member()
        await recorder.beat(has())
        assert "secret" not in place.command_of(heart)
        killed_s = signalled(member, signal.SIGKILL)
        assert await recorder.beat(has(lateness=died)) - killed_s < TOLD_WITHIN_S

    play(place, story)


def test_a_broker_that_goes(shared: Rabbit, tmp_path: Path) -> None:
    place = with_a_password(tmp_path / "me", shared, "me", "secret")

    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        await recorder.beat()
        shared.kill()
        await asyncio.sleep(5 * INTERVAL_S)
        shared.start(wait=False)  # not in a thread of this loop: with that it would end
        await asyncio.to_thread(shared.node.wait)
        await recorder.beat()
        shared.freeze()
        await asyncio.sleep(SILENT_S)
        shared.thaw()
        await recorder.beat()
        await recorder.beat()
        assert place.told().count("is heard again") <= 2

    play(place, story)


def test_wrong_password_and_no_virtual_host(shared: Rabbit, tmp_path: Path) -> None:
    reasons = {
        ("me", "guessed"): "wrong rabbitmq.user or rabbitmq.password",
        ("outside", "secret"): "access to vhost",
    }
    places = []
    try:
        for user, password in reasons:
            places.append(with_a_password(tmp_path / user, shared, user, password))
            places[-1].heart()
        for place, reason in zip(places, reasons.values(), strict=True):
            assert wait_for(lambda p=place, s=reason: s in p.told(), SOON_S)
            assert "guessed" not in place.told()
    finally:
        for place in places:
            place.end()


def test_tls(tmp_path: Path) -> None:
    ca, other_ca = authority(tmp_path / "ca"), authority(tmp_path / "other")
    cert, key = signed(tmp_path / "server", ca)
    own_cert, own_key = signed(tmp_path / "own", ca)
    with rabbit(tls=(ca[0], cert, key)) as one:

        def configured(directory: str, of: Path) -> HeartDirectory:
            (tmp_path / directory).mkdir()
            files = f'tls_ca = "{of}"\ntls_cert = "{own_cert}"\ntls_key = "{own_key}"'
            return HeartDirectory(
                tmp_path / directory, f'bus = "rabbitmq"\n[rabbitmq]\nservers = ["{one.url}"]\n{files}'
            )

        place, wrong = configured("right", ca[0]), configured("wrong", other_ca[0])

        async def story(recorder: RecordingControlBus) -> None:
            place.heart()
            place.member()
            wrong.heart()
            await recorder.beat(has())
            await asyncio.sleep(20 * INTERVAL_S)
            assert len(recorder.beats) > 15
            assert await asyncio.to_thread(wait_for, lambda: "TLS with the broker failed" in wrong.told(), SOON_S)

        try:
            play(place, story)
        finally:
            wrong.end()


def test_a_beat_larger_than_a_frame(tmp_path: Path) -> None:
    """It goes out in pieces, and is one message again."""
    with rabbit("frame_max = 8192") as one:
        place = HeartDirectory(tmp_path, f'bus = "rabbitmq"\n[rabbitmq]\nservers = ["{one.url}"]')
        made: Settings = settings(place.config, place.config.host, None)

        async def story(recorder: RecordingControlBus) -> None:
            link = made.link()
            names = tuple(f"{number:03}-{'x' * 60}" for number in range(250))
            large = beats.encode(beats.Beat("h1", "boot", 1, 1, names, (0,) * 250, (0,) * 250))
            assert len(large) > 16_000
            while recorder.bus.trouble:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(SOON_S):
                while not await asyncio.to_thread(link.tick):  # a broker that is busy may be tried again
                    await asyncio.sleep(INTERVAL_S)
            assert now_s() < link.due_s() <= now_s() + 10
            link.send(made.hosts[0][2], large)
            link.flush()
            await recorder.beat(lambda beat: beat.services == names)
            link.end("the test is over")

        play(place, story)
