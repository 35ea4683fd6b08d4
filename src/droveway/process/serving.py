"""What every process that serves the API needs: its directories, its socket, the API on it, the server itself."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from droveway.api.app import Api, ApiSettings, build_app
from droveway.api.http.pool import ThreadPool
from droveway.api.identity.attempts import AttemptBounds
from droveway.api.identity.passwords import matches
from droveway.api.image import host_images
from droveway.api.wiring import IdentitySettings, NetworkSettings, SagasSettled, VolumeSettings
from droveway.config.drivers import CREDENTIALS
from droveway.config.file import Config
from droveway.config.http_bounds import HttpBounds, connections_of, raise_open_files
from droveway.config.tls import ServerTls
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.credentials.own_table import OwnTable
from droveway.ports.control import ControlQueries
from droveway.ports.credentials import Credentials
from droveway.process import listeners
from droveway.process.joining import joining
from droveway.process.load import load
from droveway.process.run import collect_seldom
from droveway.store.engine.transaction import Store
from droveway.store.identity import directories

if TYPE_CHECKING:
    from droveway.process.agents_listener import AgentsListener

log = structlog.get_logger("droveway.api")
DEFAULTS = HttpBounds()
CONSOLES_END_S = 1.0  # how long open consoles have to be told that the program stops
REQUESTS_END_S = 2  # how long requests under way may go on once the program is told to stop


def private_directories(config: Config) -> None:
    try:
        Path(config.state_path).mkdir(parents=True, exist_ok=True)
        Path(config.images_path).mkdir(parents=True, exist_ok=True)
        Path(config.images_path).chmod(0o700)
    except OSError as error:
        raise WrongConfiguration(
            f"state_path = {config.state_path} cannot be used: {error.filename}: {error.strerror}; "
            "make it a directory that this program may write"
        ) from None


def make_api(config: Config, store: Store, sagas_settled: SagasSettled, control: ControlQueries) -> Api:
    settings = ApiSettings(
        config.api_url,
        Path(config.images_path),
        region=config.api.region,
        token_expiry_s=config.api.token_expiry_s,
        max_image_bytes=config.api.max_image_gib << 30,
        image_streams_max=config.api.image_streams_max,
        images_reserved_bytes=config.api.images_reserved_mb << 20,
        metrics_by_project=config.api.metrics_by_project,
        reclaim_s=config.reclaim_instance_interval,
        caches_tokens=config.is_alone,
        quotas=config.quota,
        consoles=config.console,
        allowed_origins=config.api.allowed_origins,
        max_requests_per_s_per_address=config.api.max_requests_per_s_per_address,
        max_requests_per_s_per_project=config.api.max_requests_per_s_per_project,
        joining=joining(config, SystemClock(), SystemNames()),
        placement=config.scheduler.settings,
        identity=IdentitySettings(
            config.identity.password_expiry_days,
            AttemptBounds(
                config.identity.wrong_logins_per_user,
                config.identity.wrong_logins_per_address,
                config.identity.wrong_logins_window_s,
            ),
        ),
        network=NetworkSettings(
            bool(config.network.driver),
            config.network.mtu_bytes,
            config.network.physical_networks,
            config.network.quota,
        ),
        volumes=VolumeSettings(config.volume.quota, config.volume.default_type, config.volume.default_zone),
    )
    hashing = ThreadPool("hashing", 2, 128)
    return Api(
        store,
        SystemClock(),
        SystemNames(),
        settings,
        credentials=OwnTable(store, partial(matches, hashing)),
        directories=_directories(config),
        hashing=hashing,
        files=ThreadPool("files", 2, 64),
        sagas_settled=sagas_settled,
        control=control,
    )


def _directories(config: Config) -> dict[str, Credentials]:
    """Of the domains whose people do not stand in the own table, by their ids."""
    settings = config.identity.ldap
    if settings is None:
        return {}
    return {directories.domain_id_of(settings.domain): load(CREDENTIALS["ldap"].start)(settings)}


class ApiServer:
    """An API on its socket."""

    def __init__(
        self,
        api: Api,
        listener: socket.socket,
        bounds: HttpBounds = DEFAULTS,
        hosts: int = 0,
        tls: ServerTls | None = None,
    ) -> None:
        """`hosts`: how many have their connections to this very process. Raises WrongConfiguration."""
        from droveway.process.http_server import BoundedServer

        self.api, self._listener, self.bounds, self._tls = api, listener, bounds, tls
        self.agents: list[AgentsListener] = []
        self._ending: asyncio.Task[None] | None = None
        # Those accepted have it too: a client that has vanished without a word is not sent to for a quarter of an hour.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(bounds.send_timeout_s * 1000))
        self.connections_max = connections_of(bounds, raise_open_files(), hosts)
        self._server = BoundedServer(
            listeners.settings(build_app(api), REQUESTS_END_S),
            bounds,
            self.connections_max,
            tls=lambda: None if tls is None else tls.context(),
        )

    async def run(self) -> None:
        """Until `end`, and what is under way is answered."""
        address, port = self._listener.getsockname()[:2]
        log.info(
            "API listens", address=address, port=port, url=self.api.settings.base_url, connections=self.connections_max
        )
        sweeping = asyncio.create_task(host_images.sweep_always(self.api), name="unused image data")
        try:
            await asyncio.gather(self._server.serve([self._listener]), *(one.run() for one in self.agents))
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})

    def end(self) -> None:
        self.api.streams.end()
        self._ending = self._ending or asyncio.get_running_loop().create_task(self._end(), name="end of the API")

    async def _end(self) -> None:
        """The server cuts consoles off where it finds them, so each is told its sentence before."""
        await self.api.consoles.end(CONSOLES_END_S)
        self._server.should_exit = True
        for listener in self.agents:
            listener.end()

    def close(self) -> None:
        self._listener.close()
        for listener in self.agents:
            listener.close()
        for pool in (self.api.hashing, self.api.files):
            assert isinstance(pool, ThreadPool), "made by make_api"
            pool.close()


def keep_the_loop_light() -> None:
    """Law 6. What is there now is never looked at again by the garbage collector, which otherwise holds every thread
    for tens of milliseconds after a long list; and a thread that works beside the loop gives way after 1 ms, not 5.
    Measured by tests/test_lag.py on a busy machine: 13 to 46 ms with both, 60 to 225 ms without."""
    gc.freeze()
    collect_seldom()
    sys.setswitchinterval(0.001)
