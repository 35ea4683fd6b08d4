"""Brokers that let in only who has a certificate of the private CA; the hosts have theirs from joining."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.api.wiring import JoinSettings
from droveway.cli.certificates import ca
from droveway.config.file import load
from droveway.config.tls import Tls
from droveway.domain.certificates import DAY_US
from droveway.pki import x509
from droveway.pki.authority_files import make_files
from droveway.pki.host_files import look, wall_us
from droveway.ports.replies import ConsoleText
from tests.certified import Cloud, dies, done, join
from tests.drivers.bus_worlds import ASK, NatsWorld, RabbitWorld, broker, control_of, ends, rabbit, works

pytestmark = pytest.mark.servers


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Cloud(tmp_path)
    yield made
    made.stop()


@contextlib.contextmanager
def closed_broker(bus: str, home: Path) -> Iterator[Any]:
    """With the certificate that lies there; it wants one of its clients."""
    own = [home / f"{name}.pem" for name in ("ca", "cert", "key")]
    if bus == "nats":
        options = ("--tls", f"--tlscert={own[1]}", f"--tlskey={own[2]}", "--tlsverify", f"--tlscacert={own[0]}")
        with broker(home / "nats", *options) as one:
            yield one
    else:
        with rabbit(tls=(own[0], own[1], own[2])) as one:
            yield one


@pytest.mark.parametrize("bus", ["nats", "rabbitmq"])
def test_a_host_is_let_in_by_what_it_has_joined_with(cloud: Cloud, tmp_path: Path, bus: str) -> None:
    for name, address in (("broker", "127.0.0.1"), ("control-1", "control-1.example")):
        done(ca, "issue", name, "--address", address, "--directory", str(tmp_path / name))
    with closed_broker(bus, tmp_path / "broker") as one:
        scheme = "tls" if bus == "nats" else "amqps"
        told = {"servers": [f"{scheme}://127.0.0.1:{one.port}"], "tls_ca": "broker-ca.pem"}
        authorities = (tmp_path / "broker" / "ca.pem").read_text()
        joining = JoinSettings({"bus": bus, bus: told}, {"broker-ca.pem": authorities})
        cloud.world.api.settings = replace(cloud.world.api.settings, joining=joining)
        dies(cloud, "h1")
        settings = join(cloud, "h1")
        asyncio.run(_story(cloud, tmp_path, one, bus, settings))


async def _story(cloud: Cloud, home: Path, one: Any, bus: str, joined: Any) -> None:
    config = load(cloud.home / "h1" / "agent.toml", "agent")
    theirs = getattr(config, bus)
    assert theirs.tls_ca == f"{joined.tls_path}/ca.pem"  # it follows when another CA takes over
    world = one.world(**_files(home / "control-1"))
    kind = NatsWorld if bus == "nats" else RabbitWorld
    agents = kind(msgspec.convert(msgspec.to_builtins(theirs) | {"ping_interval_s": 0.2}, type(world.settings)))
    async with ends(world) as e:
        e.agent("h1", bus=agents.agent())
        await works(e)
        tls = Tls(bus, theirs.tls_ca, theirs.tls_cert, theirs.tls_key)
        first = tls.context()
        assert tls.context() is first
        assert (await asyncio.to_thread(look, joined, renews_now=True)).renewed
        assert tls.context() is not first  # whoever connects again shows the new one
        one.kill()
        one.start()
        await works(e)
        assert isinstance(await e.control.command("h1", ASK, 1), ConsoleText)
    for wrong in ({}, _of_another_ca(home)):
        ca_only = {"tls_ca": str(home / "control-1" / "ca.pem")}
        async with ends(one.world(**ca_only, **wrong)) as e:
            await e.until(lambda e=e: "TLS with the broker" in control_of(e).trouble)


def _files(directory: Path) -> dict[str, str]:
    return {f"tls_{what}": str(directory / f"{what}.pem") for what in ("ca", "cert", "key")}


def _of_another_ca(home: Path) -> dict[str, str]:
    other, key = make_files(home / "other", wall_us()), x509.make_key()
    public = x509.public_key(x509.request(key, "h1"))
    made = x509.sign(other, public, "77", "h1", "spiffe://droveway/host/h1", ("h1",), wall_us(), wall_us() + DAY_US)
    (home / "other" / "cert.pem").write_text(made)
    (home / "other" / "key.pem").write_text(key)
    return {"tls_cert": str(home / "other" / "cert.pem"), "tls_key": str(home / "other" / "key.pem")}
