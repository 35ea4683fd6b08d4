"""A host joins: a token of one use becomes an agent's file. What is wrong is one sentence, and nothing is written."""

from __future__ import annotations

import asyncio
import stat
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from droveway.api.wiring import JoinSettings
from droveway.cli import joining as joining_cli
from droveway.cli.joining import COMMANDS, file_of
from droveway.config.file import load
from droveway.domain.certificates import SERVICE, Holder
from droveway.domain.faults import WrongConfiguration
from droveway.domain.liveness import State
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.process.joining import joining
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import certificates, services
from droveway.store.schema import join_tokens
from tests.api.test_services_cli import Served
from tests.api.world import World, in_world, reason

TOKENS, JOIN = "/droveway/v1/join-tokens", "/droveway/v1/join"
TOLD = JoinSettings(
    {
        "bus": "nats",
        "report_interval": 1.0,
        "service_down_time": 3.0,
        "nats": {
            "servers": ["nats://10.0.0.1:4222"],
            "user": "agents",
            "password": 'se"cret',
            "tls_ca": "broker-ca.pem",
        },
    },
    {"broker-ca.pem": "PEM\n"},
)


def allow(world: World) -> None:
    world.api.settings = replace(world.api.settings, joining=TOLD)


async def create(world: World, **wanted: object) -> str:
    named = wanted if "host" in wanted else {"any_host": True, **wanted}
    made = await world.http.post(TOKENS, json={"join_token": named}, headers=await headers(world))
    assert made.status_code == 201, made.text
    return str(made.json()["join_token"]["token"])


async def headers(world: World) -> dict[str, str]:
    return {"x-auth-token": await world.token()}


async def use(world: World, token: str, host: str) -> httpx.Response:
    return await world.http.post(JOIN, json={"join": {"token": token, "host": host}})


# -- by HTTP ----------------------------------------------------------------------------------------------------------
async def test_a_token_is_good_once(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        allow(world)
        token = await create(world)
        reply = await use(world, token, "n1")
        assert reply.status_code == 200
        assert reply.json()["join"] == {
            "host": "n1",
            "settings": TOLD.settings,
            "files": TOLD.files,
            "note": "",
            "commands": [],
        }
        again = await use(world, token, "n1")
        assert (again.status_code, "was used already, by host n1" in reason(again)) == (401, True)


async def test_of_many_that_use_a_token_at_once_one_joins(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        allow(world)
        token = await create(world)
        replies = await asyncio.gather(*(use(world, token, f"n{n}") for n in range(20)))
        assert sorted(one.status_code for one in replies) == [200] + [401] * 19


async def test_only_hashes_are_kept(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        allow(world)
        token = await create(world, host="n1")

        def read(tx: Tx) -> str:
            return str(tx.execute(join_tokens.select()).mappings().all())

        assert token not in await world.store.read(read)


async def test_what_is_wrong_with_a_token_is_said_and_uses_nothing_up(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        allow(world)
        bound, short = await create(world, host="n1"), await create(world, expires_in_s=1)
        for token, host, words in (("nonsense", "n1", "not known here"), (bound, "n2", "is for host n1, not for n2")):
            reply = await use(world, token, host)
            assert (reply.status_code, words in reason(reply)) == (401, True), reason(reply)
        await asyncio.sleep(1.05)
        reply = await use(world, short, "n3")
        assert (reply.status_code, "has expired" in reason(reply)) == (401, True)
        assert (await use(world, bound, "n1")).status_code == 200


async def test_the_name_of_a_host_that_is_alive_is_refused(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        allow(world)
        token = await create(world, host="n1")

        def appears(tx: Tx, state: State) -> None:
            services.register(tx, "n1", "nova-compute", "nova")
            services.record_verdicts(tx, [services.Verdict("n1", "nova-compute", state, "so it is", tx.now_us)])

        await world.store.run(appears, State.ALIVE)
        reply = await use(world, token, "n1")
        assert (reply.status_code, "Host n1 is alive already" in reason(reply)) == (409, True)
        refused = await world.http.post(TOKENS, json={"join_token": {"host": "n1"}}, headers=await headers(world))
        assert (refused.status_code, "is alive already" in reason(refused)) == (409, True)
        await world.store.run(appears, State.DEAD)
        assert (await use(world, token, "n1")).status_code == 200


async def test_a_token_for_any_host_takes_no_name_that_is_known(tmp_path: Path) -> None:
    """In whatever spelling, and by whatever it is known: a host that is down would be replaced by a stranger."""
    async with in_world(tmp_path) as world:
        allow(world)

        def known(tx: Tx) -> None:
            services.register(tx, "n1", "nova-compute", "nova")
            services.register(tx, "control-1", "nova-scheduler", "internal")
            services.register(tx, "v1", "droveway-scripts@pool", "internal")
            down = services.Verdict("h1", "nova-compute", State.DEAD, "so it is", tx.now_us)
            services.record_verdicts(tx, [down])
            certificates.claim(tx, Holder(SERVICE, "nats-1"), ["broker.example"])

        await world.store.run(known)
        await create(world, host="n8")
        assert (await use(world, await create(world), "n9")).status_code == 200
        token = await create(world)
        for name, holder in (
            ("h1", "a host"),
            ("H1", "a host"),
            ("n1", "a service"),
            ("v1", "a service"),
            ("control-1", "a service"),
            ("broker.example", "the holder of a certificate"),
            ("nats-1", "the holder of a certificate"),
            ("n9", "a host that has joined"),
            ("N8", "a host for which a token was made"),
        ):
            reply = await use(world, token, name)
            assert (reply.status_code, f"{name} is the name of {holder}" in reason(reply)) == (409, True), reason(reply)
        assert (await use(world, token, "n10")).status_code == 200, "it was not used up"
        assert (await use(world, await create(world, host="n1"), "n1")).status_code == 200, "an operator named it"


async def test_whose_token_it_is_must_be_said(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        allow(world)
        for wrong in ({}, {"expires_in_s": 60}, {"any_host": False}, {"host": "n1", "any_host": True}):
            reply = await world.http.post(TOKENS, json={"join_token": wrong}, headers=await headers(world))
            assert (reply.status_code, "any_host" in reason(reply)) == (400, True), wrong
    for words in ((), ("--host", "n1", "--any-host")):
        refused = run("token", "create", *words)
        assert (refused.exit_code, "--any-host" in refused.output) == (2, True)


async def test_what_is_wrong_with_a_token_costs_no_write(tmp_path: Path) -> None:
    """Anybody may ask, so asking takes no place in the one queue of writes."""
    async with in_world(tmp_path) as world:
        allow(world)
        bound, used = await create(world, host="n1"), await create(world)
        assert (await use(world, used, "n3")).status_code == 200
        asked: list[str] = []
        write = world.api.store.run

        async def counted(fn: Any, *words: Any, **named: Any) -> Any:
            asked.append(fn.__name__)
            return await write(fn, *words, **named)

        world.api.store.read = write  # type: ignore[method-assign]  # a store in memory reads as it writes
        world.api.store.run = counted  # type: ignore[method-assign]
        for token, host in (("nonsense", "n1"), (bound, "n2"), (used, "n4")):
            assert (await use(world, token, host)).status_code == 401
        assert asked == []
        assert (await use(world, bound, "n1")).status_code == 200
        assert asked == ["_use"]


async def test_only_admins_make_tokens_and_bodies_are_checked(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await headers(world)
        closed = await world.http.post(TOKENS, json={"join_token": {"host": "n1"}}, headers=admin)
        assert (closed.status_code, "cannot join" in reason(closed)) == (409, True)
        allow(world)
        assert (await world.http.post(TOKENS, json={"join_token": {}})).status_code == 401
        many = ({"expires_in_s": 0}, {"expires_in_s": 10**9}, {"hots": "h"})
        for wrong in ({"host": "a b"}, {"host": "x" * 65}, *({"any_host": True, **one} for one in many)):
            reply = await world.http.post(TOKENS, json={"join_token": wrong}, headers=admin)
            assert reply.status_code == 400, wrong
        for wrong in (
            {},
            {"token": "x"},
            {"token": 1, "host": "h"},
            {"token": "", "host": "h"},
            {"token": "x" * 300, "host": "h"},
            {"token": "x", "host": "a/b"},
            {"token": "x", "host": ".."},
        ):
            assert (await world.http.post(JOIN, json={"join": wrong})).status_code == 400, wrong


# -- by the command ---------------------------------------------------------------------------------------------------
def run(name: str, *words: str) -> Result:
    return CliRunner().invoke(COMMANDS[name], words)


def test_the_command_writes_the_agents_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Served(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one.loop.call_soon_threadsafe(allow, one.world)
    try:
        made = run("token", "create", "--host", "n1", "--expires", "10m")
        assert made.exit_code == 0, made.output
        token = made.output.split()[2].rstrip(",")
        assert f"droveway agent join --url http://127.0.0.1:{one.port} --token {token} --host n1" in made.output
        home = tmp_path / "etc"
        words = ("--url", f"http://127.0.0.1:{one.port}", "--config", str(home / "agent.toml"))
        wrong = run("join", *words, "--token", token, "--host", "n2")
        assert (wrong.exit_code, wrong.output.count("\n")) == (1, 1), wrong.output
        assert "is for host n1, not for n2" in wrong.output
        assert list(home.iterdir()) == []
        done = run("join", *words, "--token", token, "--host", "n1")
        assert done.exit_code == 0, done.output
        assert f"droveway heart --config {home}/agent.toml" in done.output
        assert sorted(path.name for path in home.iterdir()) == ["agent-broker-ca.pem", "agent.toml"]
        assert stat.S_IMODE((home / "agent.toml").stat().st_mode) == 0o600
        config = load(home / "agent.toml", "agent")
        assert (config.role, config.bus, config.nats.password) == ("agent", "nats", 'se"cret')
        assert config.nats.tls_ca == str(home / "agent-broker-ca.pem")
        assert (config.host[0].name, config.host[0].peer_uri) == ("n1", "qemu+tls://n1/system")
        with pytest.raises(WrongConfiguration, match="this is the file of role agent"):
            load(home / "agent.toml", "control")
        monkeypatch.setenv("DROVEWAY_JOIN_TOKEN", run("token", "create", "--host", "n3").output.split()[2].rstrip(","))
        quiet = run("join", words[0], words[1], "--config", str(tmp_path / "n3.toml"), "--host", "n3")
        assert quiet.exit_code == 0, quiet.output  # with a token that stands on no command line
        again = run("join", *words, "--token", token, "--host", "n1")
        assert "exists already" in again.output
        _joins_with_two_services(words[:2], tmp_path / "two")
    finally:
        one.stop()


def _joins_with_two_services(url: tuple[str, ...], home: Path) -> None:
    made = run("token", "create", "--host", "n5").output.split()[2].rstrip(",")
    words = ("join", *url, "--config", str(home / "agent.toml"), "--token", made, "--host", "n5")
    for wrong, said in ((("x",), "'x' is no service"), (("nova-compute",) * 2, "nova-compute stands there 2 times")):
        refused = run(*words, *(word for one in wrong for word in ("--service", one)))
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
    done = run(*words, "--service", "nova-compute", "--service", "droveway-scripts")
    assert done.exit_code == 0, done.output
    file = home / "agent.toml"
    starts = ("heart", "agent", "agent --service droveway-scripts")
    assert done.output.endswith("".join(f"  droveway {start} --config {file}\n" for start in starts))
    (host,) = load(file, "agent").host
    assert host.services == ("nova-compute", "droveway-scripts")


def test_a_url_that_is_none_and_one_that_does_not_answer(tmp_path: Path) -> None:
    rest = ("--token", "t", "--host", "n1", "--config", str(tmp_path / "a.toml"))
    for url in ("control:8774", "http://[::1", "ftp://control", "http://", ""):
        assert "must be http://HOST:PORT" in run("join", "--url", url, *rest).output
    for url in ("http://control:port", "http://a b", "http://127.0.0.1:1/\udcff"):
        assert "does not answer as the API does" in run("join", "--url", url, *rest).output
    assert "does not answer" in run("join", "--url", "http://127.0.0.1:1", *rest).output
    assert "is no host name" in run("join", "--url", "http://127.0.0.1:1", *rest, "--host", "a b").output
    assert not (tmp_path / "a.toml").exists()


@pytest.mark.parametrize("expires", ["0s", "31d", "999999999d", "-1h", "1", "1y", ""])
def test_a_duration_that_is_none_or_too_long(expires: str) -> None:
    refused = run("token", "create", "--any-host", "--expires", expires)
    assert (refused.exit_code, "Invalid value for '--expires'" in refused.output) == (2, True)


def test_a_url_below_the_root_and_a_file_that_cannot_be(tmp_path: Path) -> None:
    one = Served(tmp_path)
    try:
        rest = ("--token", "t", "--host", "n1", "--config")
        url = f"http://127.0.0.1:{one.port}"
        below = run("join", "--url", f"{url}/identity/v3", *rest, str(tmp_path / "a.toml"))
        assert (below.exit_code, "--url is its root" in below.output) == (1, True)
        odd = run("join", "--url", url, *rest, str(tmp_path / "a.toml"), "--token", "\udcff")
        assert (odd.exit_code, "is not UTF-8 text" in odd.output) == (2, True)
        for path in (tmp_path / ("x" * 300), tmp_path / "clouds.yaml" / "a.toml"):
            refused = run("join", "--url", url, *rest, str(path))
            assert (refused.exit_code, "cannot be written" in refused.output) == (1, True), refused.output
    finally:
        one.stop()


@pytest.mark.parametrize(
    "settings",
    [
        {"periodic": "[]"},
        {"state_path": "/"},
        {"host": {"name": "h"}},
        {"nats]\n[[periodic]]\ncommand": 1},
        {"nats": {"user": "a", 'x = 1\n[[periodic]]\nname = "y"\nz': 1}},
    ],
)
def test_an_api_tells_how_to_reach_others_and_nothing_else(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Whoever answers in its place would have this host run what he likes: its file names scripts and commands."""
    one = Served(tmp_path)

    def allow_foreign(world: World) -> None:
        world.api.settings = replace(world.api.settings, joining=JoinSettings({**TOLD.settings, **settings}))

    try:
        one.loop.call_soon_threadsafe(allow_foreign, one.world)
        token = asyncio.run_coroutine_threadsafe(create(one.world, host="n1"), one.loop).result(10)
        url = ("--url", f"http://127.0.0.1:{one.port}", "--token", token, "--host", "n1")
        refused = run("join", *url, "--config", str(tmp_path / "a.toml"))
        assert (refused.exit_code, "that no agent takes from it" in refused.output) == (1, True), refused.output
        assert not (tmp_path / "a.toml").exists()
    finally:
        one.stop()


# -- what an API tells ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "user", "words"),
    [
        ("", None, "socket bus"),
        ('bus = "nats"', "", ""),
        ('bus = "nats"\n[nats]\nuser = "c"\npassword = "p"', None, "[agents.nats]"),
        (
            'bus = "nats"\n[nats]\nservers = ["nats://b:1"]\nuser = "c"\npassword = "p"\n[agents.nats]\nuser = "a"\n'
            'password = "q"',
            "a",
            "",
        ),
        ('bus = "rabbitmq"\n[rabbitmq]\nuser = "c"\npassword = "p"', None, "[agents.rabbitmq]"),
        ('bus = "rabbitmq"\n[rabbitmq]\npassword = "p"', None, "[agents.rabbitmq]"),
        (
            'bus = "rabbitmq"\n[rabbitmq]\nservers = ["amqp://b:1"]\nuser = "c"\npassword = "p"\n[agents.rabbitmq]\n'
            'user = "a"\npassword = "q"',
            "a",
            "",
        ),
    ],
)
def test_an_api_never_hands_out_its_own_password(tmp_path: Path, text: str, user: str | None, words: str) -> None:
    file = tmp_path / "d.toml"
    file.write_text(f'state_path = "{tmp_path}"\n{text}\n')
    told = joining(load(file), SystemClock(), SystemNames())
    assert words in told.reason
    assert bool(told.reason) == bool(words)
    if user is not None:
        broker = told.settings[told.settings["bus"]]
        assert broker["user"] == user
        assert user == "" or broker["servers"][0].endswith("//b:1")
        assert "p" not in (broker["password"],)


# -- what is written --------------------------------------------------------------------------------------------------
def test_any_password_survives_the_way_into_the_file() -> None:
    odd = 'q"\\\x7f\x01\n\t#]= é 𝒳'
    text = file_of({"bus": "nats", "nats": {"password": odd, "servers": ["nats://b:1"]}}, {"name": "h7"})
    assert tomllib.loads(text)["nats"]["password"] == odd


def test_a_link_laid_beside_the_file_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    file = tmp_path / "agent.toml"
    joining_cli._unfinished(file).symlink_to(precious)
    with pytest.raises(click.ClickException, match="cannot be written"):
        joining_cli._must_be_free(file)
    assert precious.read_text() == "kept"
