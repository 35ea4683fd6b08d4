"""An API with a private CA, really served: its public listener and that of the agents, in a thread of its own."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from click.testing import CliRunner, Result
from cryptography.x509 import load_pem_x509_crl

from droveway.api.wiring import JoinSettings
from droveway.cli.joining import COMMANDS
from droveway.config.file import Config, load
from droveway.domain.liveness import State
from droveway.pki.host_files import Settings
from droveway.process import agents_listener
from droveway.process.listeners import listen_at
from droveway.process.serving import ApiServer
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from lab.nodes import free_ports
from tests.api.test_services_cli import CLOUDS
from tests.api.world import PASSWORD, World

TOLD = JoinSettings({"bus": "nats", "nats": {"servers": ["nats://10.0.0.1:4222"]}})


class Cloud:
    """`clock.ahead_us` of its world puts control's clock forward."""

    def __init__(self, home: Path, address: str = "127.0.0.1", url: str = "", joining: JoinSettings = TOLD) -> None:
        self.home, self.address = home, address
        self.port, self.agents_port = free_ports(2)
        file = home / "control.toml"
        file.write_text(
            f'state_path = "{home}/state"\n[api]\nlisten = "{address}:{self.port}"\n'
            f'agents_listen = "{address}:{self.agents_port}"\nagents_url = "{url}"\n'
        )
        self.config: Config = load(file)
        self.joining = joining
        (home / "clouds.yaml").write_text(CLOUDS.format(port=self.port, password=PASSWORD))
        self._ready, self._failed = threading.Event(), False
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        assert not self._failed

    async def _serve(self) -> None:
        self.loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self.world = World(self.home, joining=self.joining)
        serving = ApiServer(self.world.api, listen_at(f"{self.address}:{self.port}"))
        try:
            await self.world.seed()
            Path(self.config.state_path).mkdir(exist_ok=True)  # noqa: ASYNC240 - a test
            serving.agents = await agents_listener.opened(self.config, self.world.api)
            self.agents = serving.agents[0]
            assert self.agents._ca is not None
            self.world.api.consoles.uplink = self.config.agents_url  # as hosts of other machines come
            self.agents._ca._clock = self.world.clock
            running = asyncio.create_task(serving.run())
            while not (serving._server.started and self.agents._server.started):
                await asyncio.sleep(0.01)
            self._ready.set()
            await self._stopped.wait()
            serving.end()
            await running
        except BaseException:
            self._failed = True
            raise
        finally:
            self._ready.set()
            serving._listener.close()
            for listener in serving.agents:
                listener.close()
            await self.world.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(60)

    def run(self, fn: Callable[..., Any], *words: Any, **named: Any) -> Any:
        """In a write transaction."""
        return asyncio.run_coroutine_threadsafe(self.world.store.run(fn, *words, **named), self.loop).result(60)

    def on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def look(self) -> None:
        """What it does by itself within half a minute, and when something was revoked."""
        assert self.agents is not None
        self.on_loop(self.agents._ca._look())

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"


def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """One that the command line speaks to, until the test has ended."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    made = Cloud(tmp_path)
    yield made
    made.stop()


def rows(tx: Tx, table: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in tx.execute(table.select()).mappings()]


def run(command: Any, *words: str) -> Result:
    return CliRunner().invoke(command, words)


def done(command: Any, *words: str) -> str:
    found = run(command, *words)
    assert found.exit_code == 0, found.output
    return found.output


def token_of(told: str) -> str:
    found = re.search(r"join token (\S+),", told)
    assert found is not None, told
    return found[1]


def dies(cloud: Cloud, host: str) -> None:
    def write(tx: Tx) -> None:
        services.record_verdicts(tx, [services.Verdict(host, "nova-compute", State.DEAD, "it is dead", tx.now_us)])

    cloud.run(write)


def join(cloud: Cloud, host: str, *more: str, addresses: tuple[str, ...] = ()) -> Settings:
    told = [word for one in addresses for word in ("--address", one)]
    made = done(COMMANDS["token"], "create", "--host", host, *told)
    token = token_of(made)
    file = cloud.home / host / "agent.toml"
    done(
        COMMANDS["join"],
        "--url",
        cloud.url,
        "--token",
        token,
        "--host",
        host,
        "--config",
        str(file),
        "--state",
        str(cloud.home / host),
        *more,
    )
    one = load(file, "agent").host_named(host)
    return Settings(one.name, one.tls_path, one.renew_url, one.libvirt_pki)


def shown(settings: Settings, what: str = "cert") -> str:
    return (Path(settings.tls_path) / "current" / f"{what}.pem").read_text()


def ask(cloud: Cloud, settings: Settings, host: str, cert: str = "", key: str = "") -> tuple[int, str]:
    """What the agents' listener says to whoever shows that certificate; status 0: TLS lets nobody in."""
    home = Path(settings.tls_path)
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    if cert != "none":
        context.load_cert_chain(cert or str(home / "current" / "cert.pem"), key or str(home / "current" / "key.pem"))
    request = urllib.request.Request(
        f"{settings.renew_url}/droveway/v1/hosts/{host}/certificate",
        method="POST",
        data=b'{"certificate": {"trusts": []}}',
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def revoked_serials(cloud: Cloud) -> set[str]:
    text = (Path(cloud.config.ca_directory) / "revoked.pem").read_bytes()
    return {f"{one.serial_number:x}" for one in load_pem_x509_crl(text)}
