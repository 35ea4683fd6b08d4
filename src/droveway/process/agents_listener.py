"""The listeners for the agents of hosts: the same API behind TLS, which only who has a certificate of our CA enters;
and where agents and API are one program on one machine, behind a unix socket that only its user opens.

Whose certificate it is stands in each request; whether it was revoked is asked of the store (api/certificates.py).
"""

from __future__ import annotations

import asyncio
import socket

import structlog

from droveway.api.app import Api, build_app
from droveway.config.file import Config
from droveway.config.http_bounds import HttpBounds
from droveway.domain.consoles import UNIX
from droveway.drivers.clock import SystemClock
from droveway.process import authority, listeners

log = structlog.get_logger("droveway.api")
CONNECTIONS_MAX = 1024  # an agent asks once an hour; each open console is one
REQUESTS_END_S = 2


class AgentsListener:
    """Beside the public listener of an API. Without `ca` it is that of this machine."""

    def __init__(
        self, api: Api, listener: socket.socket, bounds: HttpBounds, ca: authority.CertificateAuthority | None
    ) -> None:
        from droveway.process.http_server import BoundedServer

        self._listener, self._ca = listener, ca
        self._server = BoundedServer(
            listeners.settings(build_app(api), REQUESTS_END_S),
            bounds,
            min(CONNECTIONS_MAX, bounds.max_connections),
            tls=lambda: None if ca is None else ca.context,
        )

    async def run(self) -> None:
        """Until `end`."""
        if self._ca is None:
            log.info("agents of this machine bring consoles", path=self._listener.getsockname())
            await self._server.serve([self._listener])
            return
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


async def opened(config: Config, api: Api) -> list[AgentsListener]:
    """Those that are configured. From now on this API hands out certificates, if it has a CA, and has a way for
    consoles, if it has one of them. Raises WrongConfiguration, Busy."""
    found = []
    ca = await authority.opened(config, api.store, SystemClock())
    if ca is not None:
        api.certifier = ca
        listener = listeners.listen_at(config.api.agents_listen, "api.agents_listen")
        found.append(AgentsListener(api, listener, config.api, ca))
        api.consoles.uplink = config.console.url or config.agents_url
    if config.has_console_socket:
        found.append(AgentsListener(api, listeners.listen_on_machine(config.consoles_path), config.api, None))
        api.consoles.uplink = UNIX
    return found
