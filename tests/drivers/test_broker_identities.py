"""At a real broker a host speaks for itself alone, and an answer is believed from whom it was asked."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from droveway.domain.faults import Conflict, Unreachable
from droveway.domain.model import Guest, GuestState, of_instance
from droveway.drivers.bus import beats, nats_identity
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.bus.broker_messages import Answered, HelloFrom, ProbeReply, encode
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.ports.bus import (
    AgentDisconnected,
    Beat,
    Command,
    GuestChanged,
    Hello,
    MalformedMessage,
    ReadConsole,
    Remove,
    Report,
    ServiceReport,
)
from droveway.ports.replies import Answer, ConsoleText, GuestStatus, Refused
from droveway.process import identities
from tests.agents.heart_worlds import HeartDirectory
from tests.drivers.bus_worlds import Ends, NatsWorld, control_of, ends, never, works
from tests.drivers.identity_worlds import Hostile, Identities, managed_rabbit, shared_nats, shared_rabbit, signed_nats

pytestmark = pytest.mark.servers
PAUSED = Guest("victim", GuestState.PAUSED)
FORGED = GuestStatus(Guest("victim", GuestState.ABSENT), "boot")


@pytest.fixture(scope="module", params=["nats", "rabbitmq"])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identities]:
    directory = tmp_path_factory.mktemp("own") / "broker"
    with signed_nats(directory) if request.param == "nats" else managed_rabbit() as one:
        yield one


@pytest.fixture(scope="module", params=["nats", "rabbitmq"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identities]:
    directory = tmp_path_factory.mktemp("shared") / "broker"
    with shared_nats(directory) if request.param == "nats" else shared_rabbit() as one:
        yield one


async def joined(e: Ends, of: Identities, host: str, handle: object = None) -> BrokerAgentBus:
    bus = BrokerAgentBus(await of.link(host), SystemChance(), SystemNames())
    count = len(e.welcomes)
    e.agent(host, *(() if handle is None else (handle,)), bus=bus)  # type: ignore[arg-type]
    await e.until(lambda: len(e.welcomes) > count, 15)
    return bus


async def test_with_its_own_identity_a_host_works(own: Identities) -> None:
    async with ends(own.world) as e:
        bus = await joined(e, own, "rack 1.h*1")
        await works(e, "rack 1.h*1")
        bus.notify(Beat("rack 1.h*1", "boot", 7))
        bus.notify(Report("rack 1.h*1", "boot", 1, True, "", None, (), True))
        await e.until(lambda: bool(e.told(Beat, "rack 1.h*1") and e.told(Report, "rack 1.h*1")))


async def test_all_services_of_a_host_share_its_identity(own: Identities) -> None:
    """One that was handed out before a host had several is good for all of them: no subject names a service."""
    async with ends(own.world) as e:
        await joined(e, own, "h1")
        bus = BrokerAgentBus(await own.link("h1"), SystemChance(), SystemNames())
        e.agent("h1", bus=bus, service="droveway-scripts")
        await e.until(lambda: len(e.welcomes) == 2, 15)
        bus.notify(ServiceReport("h1", "droveway-scripts", "boot", True, "well"))
        await e.until(lambda: bool(e.told(ServiceReport)))
        for service in ("nova-compute", "droveway-scripts"):
            assert (
                await e.control.command("h1", Command(of_instance("i"), 3, ReadConsole()), 5, service)
            ).text == "i 3"


async def test_a_heart_beats_as_its_own_host_alone(own: Identities, tmp_path: Path) -> None:
    table = "nats" if isinstance(own.world, NatsWorld) else "rabbitmq"
    settings = {"servers": list(own.world.settings.servers), **await own.settings("h1")}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    place = HeartDirectory(tmp_path, f'bus = "{table}"\n[{table}]\n{lines}')
    async with ends(own.world) as e:
        try:
            place.heart()
            place.member()
            await e.until(lambda: bool(e.told(Beat)), 15)
        finally:
            place.end()


async def test_with_its_own_identity_a_host_cannot_speak_for_another(own: Identities) -> None:
    async with ends(own.world) as e:
        await joined(e, own, "h1", never)
        await joined(e, own, "h2")
        control = control_of(e)
        agent = control._agents.of("h1")["nova-compute"]
        waiting = asyncio.create_task(e.control.command("h1", Command(of_instance("victim"), 7, Remove()), 20))
        await e.until(lambda: bool(agent.waiting))
        (to,) = agent.waiting  # even one that knows the secret of a request cannot answer it
        evil, said = Hostile(own, "h2"), len(e.heard)
        for subject, payload in (
            (to.decode(), encode(Answered(FORGED))),
            (to.decode(), encode(ProbeReply())),
            (f"droveway.notice.gone.h1.{agent.id}", encode(AgentDisconnected("h1", "it ended", in_order=True))),
            (f"droveway.notice.changed.h1.{agent.id}", encode(GuestChanged("h1", "boot", PAUSED))),
            ("droveway.beat.h1", beats.encode(Beat("h1", "boot", 99))),
            ("droveway.hello.h1", encode(HelloFrom("evil", Hello("h1", "boot", "here")))),
            (f"droveway.hello-to.{control._id}.h1", encode(HelloFrom("evil", Hello("h1", "boot", "here")))),
            (f"droveway.agent.h1.{agent.id}", b"a command"),
            ("droveway.ask", b"me"),
            ("droveway.nudge", b"nudge"),
            ("droveway.question.control", b"question"),
        ):
            await evil.may_not_say(subject, payload)
        for subject in (
            "droveway.agent.h1.*",
            "droveway.agent.*.*",
            "droveway.answer.*.*.*",
            "droveway.beat.*",
            "droveway.ask.h1",
            "droveway.notice.*.*.*",
            "droveway.hello.*",
        ):
            await evil.may_not_hear(subject)
        assert e.heard[said:] == []
        assert evil.heard == []
        assert not waiting.done()
        waiting.cancel()
        await works(e, "h2")
        await evil.close()


async def test_what_a_host_says_of_another_on_its_own_subjects_counts_for_nobody(own: Identities) -> None:
    async with ends(own.world) as e:
        await joined(e, own, "h1")
        await joined(e, own, "h2")
        control, said = control_of(e), len(e.heard)
        link = await (evil := Hostile(own, "h2")).connected()
        id_ = control._agents.of("h2")["nova-compute"].id
        for subject, payload in (
            ("droveway.beat.h2", beats.encode(Beat("h1", "boot", 99))),
            (f"droveway.notice.gone.h2.{id_}", encode(AgentDisconnected("h1", "it ended"))),
            (f"droveway.notice.report.h2.{id_}", encode(Report("h1", "boot", 1, True, "", None, (), True))),
            ("droveway.hello.h2", encode(HelloFrom("evil", Hello("h1", "boot", "here")))),
            (f"droveway.answer.{control._id}.h2.guessed", encode(Answered(FORGED))),
        ):
            assert link.publish(subject, payload)
        await e.until(lambda: control.strays == 1)
        assert all(isinstance(one, MalformedMessage) and one.host == "h2" for one in e.heard[said:])
        await works(e, "h1")
        await evil.close()


async def test_with_the_shared_user_an_answer_without_the_secret_is_not_believed(shared: Identities) -> None:
    async def honest(command: Command) -> Answer:
        await asyncio.sleep(0.6)
        return Refused("the store is read-only")

    async with ends(shared.world) as e:
        await joined(e, shared, "h1", honest)
        control = control_of(e)
        link = await (evil := Hostile(shared, "h2")).connected()
        waiting = asyncio.create_task(e.control.command("h1", Command(of_instance("victim"), 7, Remove()), 10))
        await e.until(lambda: bool(control._agents.of("h1")["nova-compute"].waiting))
        (to,) = control._agents.of("h1")["nova-compute"].waiting
        base, _, secret = to.decode().rpartition(".")
        guesses = [*map(str, range(200)), secret[:-1], secret[:-1] + "~", secret.swapcase(), "*", ">", "#"]
        for guess in guesses:
            link.publish(f"{base}.{guess}", encode(Answered(FORGED)))
        link.publish(f"{base.removesuffix('.h1')}.h2.{secret}", encode(Answered(FORGED)))  # in its own name
        await e.until(lambda: control.strays >= 200)
        answer = await waiting
        assert answer == Refused("the store is read-only")
        await evil.close()


async def test_an_old_answer_is_no_answer_to_the_next_request(shared: Identities) -> None:
    async with ends(shared.world) as e:
        await joined(e, shared, "h1", never)
        control = control_of(e)
        link = await (evil := Hostile(shared, "h1")).connected()
        with pytest.raises(Unreachable, match="did not answer within"):
            waiting = asyncio.create_task(e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 0.2))
            await e.until(lambda: bool(control._agents.of("h1")["nova-compute"].waiting))
            (first,) = control._agents.of("h1")["nova-compute"].waiting
            await waiting
        waiting = asyncio.create_task(e.control.command("h1", Command(of_instance("i"), 2, ReadConsole()), 5))
        await e.until(lambda: bool(control._agents.of("h1")["nova-compute"].waiting))
        (second,) = control._agents.of("h1")["nova-compute"].waiting
        link.publish(first.decode(), encode(Answered(FORGED)))
        await e.until(lambda: control.strays == 1)
        assert not waiting.done()
        link.publish(second.decode(), encode(Answered(ConsoleText("a line"))))
        assert await waiting == ConsoleText("a line")
        await evil.close()


async def test_a_host_whose_token_was_revoked_is_put_out_and_joins_anew(tmp_path: Path) -> None:
    """NATS keeps no list of users and asks nobody: the account's token names who is out, and is read at a reload."""
    directory = tmp_path / "broker"
    with signed_nats(directory) as of:
        lost, other = await Hostile(of, "h1").connected(), await Hostile(of, "h2").connected()
        identities.revoke_nats_users(directory / "keys", ["h1"], SystemClock())
        assert lost.is_connected, "until the server reads it"
        assert of.server is not None
        of.server.nodes[0].send(signal.SIGHUP)
        await until(lambda: not lost.is_connected)
        assert other.is_connected
        with pytest.raises(TimeoutError):  # and a token says in whole seconds when it was signed
            async with asyncio.timeout(2):
                await Hostile(of, "h1").connected()  # with the one that was stolen
        of.forget("h1")
        assert (await Hostile(of, "h1").connected()).is_connected, "it has joined anew"
        account = nats_identity.signing_key(str(directory / "keys" / "account.seed"))
        identities.revoke_nats_users(directory / "keys", ["h3", account.user_of("h4")], SystemClock())
        some = ["h1", "h2", "h3", "h4"]
        assert revoked_in(directory / "keys", some) == {"h1", "h3", "h4"}, "what was revoked before stays so"


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not found():
            await asyncio.sleep(0.02)


def revoked_in(keys: Path, hosts: list[str]) -> set[str]:
    conf = (keys / "nats-identities.conf").read_text()
    middle = conf.rsplit(": ey")[-1].split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(middle + "=="))["nats"]["revocations"]
    account = nats_identity.signing_key(str(keys / "account.seed"))
    return {host for host in hosts if account.user_of(host) in told}


def test_what_cannot_be_revoked_is_said(tmp_path: Path) -> None:
    clock = SystemClock()
    keys, others = tmp_path / "keys", tmp_path / "others"
    with pytest.raises(Conflict, match=r"operator\.seed cannot be used"):
        identities.revoke_nats_users(keys, ["h1"], clock)
    for directory in (keys, others):
        identities.make_nats_keys(directory, "droveway", clock, SystemNames())
    conf = (keys / "nats-identities.conf").read_text()
    (keys / "operator.seed").write_text((others / "operator.seed").read_text())
    with pytest.raises(Conflict, match="another operator's seed"):
        identities.revoke_nats_users(keys, ["h1"], clock)
    (keys / "operator.seed").write_text((keys / "account.seed").read_text())
    with pytest.raises(Conflict, match="begins with SO"):
        identities.revoke_nats_users(keys, ["h1"], clock)
    assert (keys / "nats-identities.conf").read_text() == conf
    (others / "nats-identities.conf").write_text("accounts {}")
    with pytest.raises(Conflict, match="not as 'droveway nats-keys' writes it"):
        identities.revoke_nats_users(others, ["h1"], clock)
