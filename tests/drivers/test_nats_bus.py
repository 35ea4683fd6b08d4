"""What only a bus with a broker in the middle has to stand: its troubles, strangers on it, several controls.

More than 400 lines because each way in which a broker can go wrong is a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from droveway.domain.faults import Unreachable, WrongConfiguration
from droveway.domain.service_kinds import COMPUTE, SCRIPTS
from droveway.drivers.bus import beats
from droveway.drivers.bus import broker as broker_bus
from droveway.drivers.bus.broker_link import WRITE_BUFFER_MAX
from droveway.drivers.bus.broker_messages import encode
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.clock import SystemChance
from droveway.ports.bus import AgentDisconnected, Beat, Hello
from droveway.ports.replies import ConsoleText
from tests.drivers.bus_worlds import ASK, Broker, NatsWorld, broker, control_of, ends, filled, never, works

pytestmark = pytest.mark.servers


@pytest.fixture
def one_broker(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path / "nats") as one:
        yield one


@contextlib.contextmanager
def stranger(one: Broker) -> Iterator[socket.socket]:
    """Somebody on the broker who speaks to it by hand."""
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as connection:
        connection.recv(1 << 16)
        connection.sendall(b'CONNECT {"verbose":false}\r\n')
        yield connection


def published(subject: str, payload: bytes) -> bytes:
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)


def memory_mib() -> float:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / (1 << 20)


async def test_a_service_that_only_its_heart_names_is_asked_for_again_and_again(one_broker: Broker) -> None:
    """Its hello was lost, and the question after it as well."""
    before, broker_bus.ASK_AGAIN_S = broker_bus.ASK_AGAIN_S, 0.2
    try:
        async with ends(one_broker.world()) as e:
            e.agent("h1")
            await e.until(lambda: bool(e.welcomes))
            with stranger(one_broker) as heart:
                heart.sendall(b"SUB droveway.ask.h1 1\r\n")
                for counter in range(1, 40):
                    beat = Beat("h1", "boot", counter, 1, (COMPUTE, SCRIPTS), (counter, counter), (0, 0))
                    heart.sendall(published("droveway.beat.h1", beats.encode(beat)))
                    await asyncio.sleep(0.1)
                heart.settimeout(1.0)
                assert heart.recv(1 << 16).count(b"MSG droveway.ask.h1 ") >= 2  # at most one a second
    finally:
        broker_bus.ASK_AGAIN_S = before


# -- the broker's troubles --------------------------------------------------------------------------------------------
async def test_broker_restarted_under_commands_in_flight(one_broker: Broker) -> None:
    async with ends(one_broker.world()) as e:
        e.agent("slow", never)
        e.agent("h1")
        await e.until(lambda: len(e.welcomes) == 2)
        waiting = [asyncio.create_task(e.control.command("slow", ASK, 60)) for _ in range(20)]
        await asyncio.sleep(0.05)
        one_broker.kill()
        began = time.monotonic()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - began < 2
        assert all(isinstance(one, Unreachable) and "ended" in one.reason for one in ended)
        with pytest.raises(Unreachable, match=r"not connected: .*broker"):
            await e.control.command("h1", ASK, 60)
        await asyncio.sleep(0.3)
        one_broker.start()
        began = time.monotonic()
        await works(e)
        assert time.monotonic() - began < 3
        assert not e.told(AgentDisconnected, "h1")  # the end of a broker says nothing about agents


async def test_broker_away_at_the_start(tmp_path: Path) -> None:
    with broker(tmp_path / "nats", started=False) as one, capture_logs() as logs:
        async with ends(one.world()) as e:
            e.agent("h1")
            await asyncio.sleep(0.5)
            assert "cannot be reached" in control_of(e).trouble
            assert one.url in control_of(e).trouble
            with pytest.raises(Unreachable, match="cannot be reached"):
                await e.control.command("h1", ASK, 60)
            assert len(logs) == 2  # each end says it once, however often it tries
            one.start()
            await works(e)
            assert control_of(e).trouble == ""


async def test_a_frozen_broker_is_left_for_another_and_what_is_unsent_is_bounded(tmp_path: Path) -> None:
    with broker(tmp_path / "one") as one, broker(tmp_path / "two") as two:
        world = one.world(servers=(one.url, two.url))
        async with ends(world) as e:
            link = world.link(servers=(one.url, two.url))
            agent = e.agent("h1", bus=world.agent(link))
            one.freeze()  # whoever is on it, or comes to it, waits
            two.freeze()
            two.thaw()
            await e.until(lambda: bool(e.welcomes), 15)
            two.freeze()
            one.thaw()
            report = filled(100_000)
            for _ in range(500):
                agent.notify(report)
            assert link.dropped > 100
            assert link._wire is not None
            assert link._wire.unsent_bytes() <= WRITE_BUFFER_MAX
            await works(e)


async def test_a_slow_control_does_not_grow(one_broker: Broker) -> None:
    """What it does not read stays in the kernel and in the broker, which drops at its own bound."""
    async with ends(one_broker.world()) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        heard, before_mib = 0, memory_mib()
        highest_mib = before_mib

        def slow(_notice: object) -> None:
            nonlocal heard, highest_mib
            heard, highest_mib = heard + 1, max(highest_mib, memory_mib())
            time.sleep(0.02)

        control_of(e)._on_notice = slow
        hello_id = control_of(e)._agents.of("h1")["nova-compute"].id
        report = filled(200_000)
        message = published(f"droveway.notice.report.h1.{hello_id}", encode(report))
        with stranger(one_broker) as other:
            for _ in range(500):  # 100 MB, read at 10 MB a second
                await asyncio.to_thread(other.sendall, message)
                if heard >= 100:
                    break
        control_of(e)._on_notice = e.on_notice
        assert heard >= 100
        assert highest_mib - before_mib < 24
        await works(e)


# -- who may enter ----------------------------------------------------------------------------------------------------
async def test_wrong_password(tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"

    file.write_text('authorization { user: droveway, password: "secret" }\n')
    with broker(tmp_path / "nats", "-c", str(file)) as one, capture_logs() as logs:
        async with ends(one.world(user="droveway", password="guessed")) as e:
            e.agent("h1")
            await e.until(lambda: "wrong nats.user or nats.password" in control_of(e).trouble)
            with pytest.raises(Unreachable, match=r"wrong nats.user or nats.password"):
                await e.control.command("h1", ASK, 60)
            await asyncio.sleep(0.5)
            assert len([line for line in logs if "nats.password" in line.get("because", "")]) == 2
            assert "guessed" not in str(logs)
            one.stop()
            file.write_text('authorization { user: droveway, password: "guessed" }\n')
            one.start()
            await works(e)


async def test_no_permission(tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    file.write_text("""authorization { users: [
        {user: control, password: a, permissions: {publish: {deny: "droveway.agent.>"}}}, {user: agent, password: b}]}
    """)

    with broker(tmp_path / "nats", "-c", str(file)) as one:
        async with ends(one.world(user="control", password="a")) as e:
            agents = one.world(user="agent", password="b")
            e.agent("h1", bus=agents.agent())
            await e.until(lambda: bool(e.heard))
            with pytest.raises(Unreachable, match=r"Permissions Violation for Publish.*knows this end as control"):
                await e.control.command("h1", ASK, 0.2)


async def test_tls(tmp_path: Path) -> None:
    ca, other_ca = authority(tmp_path / "ca"), authority(tmp_path / "other")
    cert, key = signed(tmp_path / "broker", ca)
    own_cert, own_key = signed(tmp_path / "own", ca)
    options = ("--tls", f"--tlscert={cert}", f"--tlskey={key}", "--tlsverify", f"--tlscacert={ca[0]}")

    with broker(tmp_path / "nats", *options) as one:
        own = {"tls_cert": str(own_cert), "tls_key": str(own_key)}
        async with ends(one.world(tls_ca=str(ca[0]), **own)) as e:
            e.agent("h1", bus=NatsWorld(one.world(tls_ca=str(ca[0]), **own).settings).agent())
            await works(e)
            assert isinstance(await e.control.command("h1", ASK, 1), ConsoleText)
        for world, reason in (
            (one.world(tls_ca=str(other_ca[0]), **own), "unable to get local issuer"),
            (one.world(tls_ca=str(ca[0])), "TLS with the broker"),
        ):
            async with ends(world) as e:
                await e.until(lambda e=e: "made yet" not in control_of(e).trouble)
                assert reason in control_of(e).trouble


async def test_tls_that_is_demanded_is_not_done_without(one_broker: Broker, tmp_path: Path) -> None:
    ca = authority(tmp_path / "ca")
    async with ends(one_broker.world(tls_ca=str(ca[0]))) as e:
        await e.until(lambda: "does not offer TLS" in control_of(e).trouble)


def test_wrong_settings_do_not_start(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for settings, reason in (
        (NatsSettings(()), "nats.servers is empty"),
        (NatsSettings(("http://host:1",)), "must be nats://HOST:PORT"),
        (NatsSettings(("nats://host:99999",)), "must be nats://HOST:PORT"),
        (NatsSettings(("nats://a:b@host:4222",)), "keys of their own"),
        (NatsSettings(prefix="a.b"), "nats.prefix"),
        (NatsSettings(user="me"), "go together"),
        (NatsSettings(tls_cert="c"), "go together"),
        (NatsSettings(tls_ca="/nowhere"), "no such file"),
        (NatsSettings(tls_ca=str(tmp_path / "empty")), "must be PEM"),
    ):
        with pytest.raises(WrongConfiguration, match=reason):
            NatsLink(settings, SystemChance())


# -- strangers and several --------------------------------------------------------------------------------------------
async def test_a_flood_of_garbage_harms_nothing(one_broker: Broker) -> None:
    with capture_logs() as logs:
        async with ends(one_broker.world()) as e:
            agent = e.agent("h1")
            await e.until(lambda: bool(e.welcomes))
            good = beats.encode(Beat("h1", "boot", 1, 1, ("a",), (1,), (1,)))
            junk = [
                b"",
                b"x",
                b"\xb1" * 40,
                good[:-1],
                good + b"two\0notes",
                b"\xb1\xff\xff\xff",
                good.replace(b"h1", b"\xff\xff"),
            ]
            flood = b"".join(published("droveway.beat.h1", one) for one in junk) * 2000
            flood += b"".join(
                published(f"droveway.{subject}", one)
                for one in junk
                for subject in (
                    "hello",
                    "notice.report.h1.x",
                    "notice.gone.h1.x",
                    "ask",
                    "agent.h1.x",
                    "beat.other",
                )
            )
            for number in range(3000):  # whole beats, of hosts that nobody knows
                flood += published(f"droveway.beat.n{number}", beats.encode(Beat(f"n{number}", "boot", 1)))
            flood += published("droveway.beat.h2", good)  # under another's subject
            flood += published("droveway.beat.h1", beats.encode(Beat("h1", "an older boot", 1)))
            with stranger(one_broker) as other:
                await asyncio.to_thread(other.sendall, flood)
                await e.until(lambda: control_of(e).garbage >= 14_000 and control_of(e).foreign_beats == 2)
            agent.notify(Beat("h1", "boot", 5))
            await works(e)
            # The one of another boot, too: the judge decides.
            assert e.told(Beat) == [Beat("h1", "an older boot", 1), Beat("h1", "boot", 5)]
            assert len(control_of(e)._reader._known) <= 1
    said = [line["subject"].rpartition(".")[2] for line in logs if "malformed message" in line["event"]]
    assert sorted(said) == ["h1", "other"]  # once for each name


async def test_two_controls_hear_and_command(one_broker: Broker) -> None:
    world = one_broker.world()
    async with ends(world) as one, ends(world) as two:
        agent = one.agent("h1")
        await one.until(lambda: bool(one.told(Hello)) and bool(two.told(Hello)))
        await one.until(lambda: bool(one.welcomes))  # before it was let in it tells nothing
        agent.notify(Beat("h1", "boot", 4))
        for e in (one, two):
            assert isinstance(await e.control.command("h1", ASK, 5), ConsoleText)
            await e.until(lambda e=e: bool(e.told(Beat)))
        one.agent("h1", address="second")
        await one.until(lambda: sum(not welcome.accepted for welcome in one.welcomes) >= 2)
        assert len(one.told(Hello)) == len(two.told(Hello)) == 1
        await two.control.close()
        assert isinstance(await one.control.command("h1", ASK, 5), ConsoleText)


async def test_many_hosts_share_a_connection(one_broker: Broker) -> None:
    world = one_broker.world()
    async with ends(world) as e:
        link = world.link()
        for number in range(20):
            e.agent(f"h{number}", bus=world.agent(link))
        await e.until(lambda: len(e.welcomes) >= 20)
        e.tasks[3].cancel()
        await e.until(lambda: bool(e.told(AgentDisconnected, "h3")))
        answers = await asyncio.gather(*(e.control.command(f"h{n}", ASK, 5) for n in range(20) if n != 3))
        assert len(answers) == 19


AGENT = """
import asyncio, sys
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import Hello
async def never(command):
    await asyncio.sleep(60)
bus = BrokerAgentBus(NatsLink(NatsSettings((sys.argv[1],)), SystemChance()), SystemChance(), SystemNames())
asyncio.run(bus.run(lambda: Hello("h1", "boot", "a process"), print, never))
"""


async def test_a_killed_agent_ends_its_commands_and_leaves_its_name(one_broker: Broker) -> None:
    process = subprocess.Popen([sys.executable, "-c", AGENT, one_broker.url], stdout=subprocess.DEVNULL)
    try:
        async with ends(one_broker.world()) as e:
            await e.until(lambda: bool(e.heard))
            waiting = asyncio.create_task(e.control.command("h1", ASK, 60))
            await asyncio.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(Unreachable, match="its process has ended"):
                await waiting
            assert time.monotonic() - began < 3
            e.agent("h1")
            await e.until(lambda: bool(e.welcomes))
            assert e.welcomes[0].accepted
            await works(e)
    finally:
        process.kill()
        process.wait(30)


# -- a throw-away authority -------------------------------------------------------------------------------------------
def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)


def authority(directory: Path) -> tuple[Path, Path]:
    directory.mkdir()
    cert, key = directory / "ca.pem", directory / "ca.key"
    openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=throw-away",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    )
    return cert, key


def signed(directory: Path, ca: tuple[Path, Path]) -> tuple[Path, Path]:
    directory.mkdir()
    cert, key, request, more = (directory / name for name in ("own.pem", "own.key", "own.csr", "own.ext"))
    more.write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=own",
        "-keyout",
        str(key),
        "-out",
        str(request),
    )
    openssl(
        "x509",
        "-req",
        "-in",
        str(request),
        "-CA",
        str(ca[0]),
        "-CAkey",
        str(ca[1]),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        str(more),
        "-out",
        str(cert),
    )
    return cert, key
