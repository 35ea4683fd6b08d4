"""The listener for the agents of hosts: the same API behind TLS, which only who has a certificate of our CA enters.

Whose certificate it is stands in each request; whether it was revoked is asked of the store (api/certificates.py).
"""

from __future__ import annotations

import asyncio
import socket

import structlog

from droveway.api.app import Api, build_app
from droveway.config.file import Config
from droveway.config.http_bounds import HttpBounds
from droveway.drivers.clock import SystemClock
from droveway.process import authority

log = structlog.get_logger("droveway.api")
CONNECTIONS_MAX = 1024  # an agent asks once an hour


class AgentsListener:
    """Beside the public listener of an API."""

    def __init__(
        self, api: Api, listener: socket.socket, bounds: HttpBounds, ca: authority.CertificateAuthority
    ) -> None:
        import uvicorn

        from droveway.process.http_server import BoundedServer

        self._listener, self._ca = listener, ca
        self._server = BoundedServer(
            uvicorn.Config(
                build_app(api),
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_level="warning",
                proxy_headers=False,
                timeout_graceful_shutdown=2,
            ),
            bounds,
            min(CONNECTIONS_MAX, bounds.max_connections),
            tls=lambda: ca.context,
        )

    async def run(self) -> None:
        """Until `end`."""
        address, port = self._listener.getsockname()[:2]
        log.info("agents' listener listens", address=address, port=port, url=self._ca.agents_url)
        looking = asyncio.create_task(self._ca.run(), name="ca")
        try:
            await self._server.serve([self._listener])
        finally:
            looking.cancel()

    def end(self) -> None:
        self._server.should_exit = True

    def close(self) -> None:
        self._listener.close()


async def opened(config: Config, api: Api) -> AgentsListener | None:
    """None where it is not configured. From now on this API hands out certificates. Raises WrongConfiguration, Busy."""
    from droveway.process.serving import listen_at

    ca = await authority.opened(config, api.store, SystemClock())
    if ca is None:
        return None
    api.certifier = ca
    return AgentsListener(api, listen_at(config.api.agents_listen, "api.agents_listen"), config.api, ca)
