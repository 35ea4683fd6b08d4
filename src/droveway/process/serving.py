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
from droveway.api.identity.passwords import matches
from droveway.api.image import host_images
from droveway.api.wiring import NetworkSettings, SagasSettled
from droveway.config.file import Config
from droveway.config.http_bounds import HttpBounds, connections_of, raise_open_files
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.credentials.own_table import OwnTable
from droveway.ports.control import ControlQueries
from droveway.process.joining import joining
from droveway.store.engine.transaction import Store

if TYPE_CHECKING:
    from droveway.process.agents_listener import AgentsListener

log = structlog.get_logger("droveway.api")
DEFAULTS = HttpBounds()
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


def listen_at(address: str, key: str = "api.listen") -> socket.socket:
    host, _, port = address.rpartition(":")
    # With the protocol named, asyncio switches Nagle off on each connection: without it every reply waits 40 ms.
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # those accepted have what it has
        listener.listen(1024)  # at once: until then another program may bind the same port
    except OSError as error:
        raise WrongConfiguration(
            f"{key} = {address} cannot be used: {error.strerror}; stop what listens there, or choose another port"
        ) from None
    return listener


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
        joining=joining(config, SystemClock(), SystemNames()),
        placement=config.scheduler.settings,
        network=NetworkSettings(
            bool(config.network.driver),
            config.network.mtu_bytes,
            config.network.physical_networks,
            config.network.quota,
        ),
    )
    hashing = ThreadPool("hashing", 2, 128)
    return Api(
        store,
        SystemClock(),
        SystemNames(),
        settings,
        credentials=OwnTable(store, partial(matches, hashing)),
        hashing=hashing,
        files=ThreadPool("files", 2, 64),
        sagas_settled=sagas_settled,
        control=control,
    )


class ApiServer:
    """An API on its socket."""

    def __init__(self, api: Api, listener: socket.socket, bounds: HttpBounds = DEFAULTS, hosts: int = 0) -> None:
        """`hosts`: how many have their connections to this very process. Raises WrongConfiguration."""
        import uvicorn

        from droveway.process.http_server import BoundedServer

        self.api, self._listener, self.bounds = api, listener, bounds
        self.agents: AgentsListener | None = None
        # Those accepted have it too: a client that has vanished without a word is not sent to for a quarter of an hour.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(bounds.send_timeout_s * 1000))
        self.connections_max = connections_of(bounds, raise_open_files(), hosts)
        self._server = BoundedServer(
            uvicorn.Config(
                build_app(api),
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_level="warning",
                proxy_headers=False,
                timeout_graceful_shutdown=REQUESTS_END_S,
            ),
            bounds,
            self.connections_max,
        )

    async def run(self) -> None:
        """Until `end`, and what is under way is answered."""
        address, port = self._listener.getsockname()[:2]
        log.info(
            "API listens", address=address, port=port, url=self.api.settings.base_url, connections=self.connections_max
        )
        sweeping = asyncio.create_task(host_images.sweep_always(self.api), name="unused image data")
        try:
            if self.agents is None:
                await self._server.serve([self._listener])
            else:
                await asyncio.gather(self._server.serve([self._listener]), self.agents.run())
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})

    def end(self) -> None:
        self._server.should_exit = True
        if self.agents is not None:
            self.agents.end()
        self.api.streams.end()

    def close(self) -> None:
        self._listener.close()
        if self.agents is not None:
            self.agents.close()
        for pool in (self.api.hashing, self.api.files):
            assert isinstance(pool, ThreadPool), "made by make_api"
            pool.close()


def keep_the_loop_light() -> None:
    """Law 6. What is there now is never looked at again by the garbage collector, which otherwise holds every thread
    for tens of milliseconds after a long list; and a thread that works beside the loop gives way after 1 ms, not 5.
    Measured by tests/test_lag.py on a busy machine: 13 to 46 ms with both, 60 to 225 ms without."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    sys.setswitchinterval(0.001)
