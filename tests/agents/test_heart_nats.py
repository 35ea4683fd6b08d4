"""The heart over a NATS broker: a password, TLS, and a broker that goes or no longer answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

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
from tests.drivers.bus_worlds import Broker, broker
from tests.drivers.test_nats_bus import authority, signed

pytestmark = pytest.mark.servers
TOLD_WITHIN_S = 0.1
SILENT_S = 9.0  # longer than three pings take


@contextlib.contextmanager
def with_a_password(home: Path) -> Iterator[tuple[Broker, HeartDirectory]]:
    """The first server is none; either may be tried first."""
    with broker(home / "nats", "--user", "me", "--pass", "secret") as one:
        yield (
            one,
            HeartDirectory(
                home,
                f'bus = "nats"\n[nats]\nservers = ["nats://127.0.0.1:1", "{one.url}"]\n'
                'user = "me"\npassword = "secret"',
            ),
        )


@pytest.mark.alone
def test_a_password_and_a_death_that_is_told_at_once(tmp_path: Path) -> None:
    with with_a_password(tmp_path) as (_, place):

        async def story(recorder: RecordingControlBus) -> None:
            heart, member = place.heart(), place.member()
            await recorder.beat(has())
            assert "secret" not in place.command_of(heart)
            killed_s = signalled(member, signal.SIGKILL)
            assert await recorder.beat(has(lateness=died)) - killed_s < TOLD_WITHIN_S

        play(place, story)


def test_a_broker_that_goes(tmp_path: Path) -> None:
    with with_a_password(tmp_path) as (one, place):

        async def story(recorder: RecordingControlBus) -> None:
            place.heart()
            await recorder.beat()
            one.kill()
            await asyncio.sleep(5 * INTERVAL_S)
            await asyncio.to_thread(one.start)
            await recorder.beat()
            os.kill(one.nodes[0].pid, signal.SIGSTOP)
            await asyncio.sleep(SILENT_S)
            os.kill(one.nodes[0].pid, signal.SIGCONT)
            await recorder.beat()

        play(place, story)


def test_tls(tmp_path: Path) -> None:
    ca, other_ca = authority(tmp_path / "ca"), authority(tmp_path / "other")
    cert, key = signed(tmp_path / "server", ca)
    own_cert, own_key = signed(tmp_path / "own", ca)
    options = ("--tls", f"--tlscert={cert}", f"--tlskey={key}", "--tlsverify", f"--tlscacert={ca[0]}")
    with broker(tmp_path / "nats", *options) as one:

        def configured(directory: str, of: Path) -> HeartDirectory:
            (tmp_path / directory).mkdir()
            return HeartDirectory(
                tmp_path / directory,
                f'bus = "nats"\n[nats]\nservers = ["{one.url}"]\ntls_ca = "{of}"\n'
                f'tls_cert = "{own_cert}"\ntls_key = "{own_key}"',
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
