"""The way of a console from a host to an API: a websocket that the agent opens.

To the agents' listener of the API, with TLS: the certificate of the host is shown, and that of the API checked
(decision 021). Where control, API and agents are one program on one machine, to a unix socket beside that of the bus,
which is its user's alone. Nowhere else: an agent goes to no address of another kind, whoever names it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from droveway.domain.consoles import PIECE_BYTES, SESSION_HEADER, STREAMS, UNIX, last_words
from droveway.ports.consoles import UplinkRefused

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CONNECT_S = 3.0
CLOSE_S = 1.0
MESSAGE_MAX_BYTES = 1 << 20
PING_S = 20.0
OVER = 1000  # the code of an end in good order
# Its debug lines show the headers, in which the secret name of the session is.
QUIET = logging.getLogger("droveway.websocket")
QUIET.setLevel(logging.WARNING)


class WebsocketUplink:
    """Answers droveway.ports.consoles.ConsoleUplink."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes | None:
        from websockets.exceptions import ConnectionClosed

        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            return None
        return message.encode() if isinstance(message, str) else message

    async def send(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(data)
        except ConnectionClosed:
            raise ConnectionResetError("the session is over") from None

    async def close(self, reason: str = "") -> None:
        await self._connection.close(OVER, last_words(reason))


class WebsocketUplinks:
    """Answers droveway.ports.consoles.ConsoleUplinks, for one host. `socket_path`: that of the API on this machine, if
    there is one; `tls_path`: where the certificate of the host lies, read each time, since it is renewed."""

    def __init__(self, host: str, socket_path: str, tls_path: str) -> None:
        self._host, self._socket_path, self._tls_path = host, socket_path, tls_path

    async def connect(self, url: str, session: str) -> WebsocketUplink:
        # Here, so that an agent that carries no console does not keep in memory what carries one.
        from websockets.asyncio.client import connect, unix_connect
        from websockets.exceptions import InvalidHandshake, InvalidURI

        options = {
            "additional_headers": {SESSION_HEADER: session},
            "user_agent_header": None,
            "compression": None,
            "open_timeout": CONNECT_S,
            "close_timeout": CLOSE_S,
            "ping_interval": PING_S,
            "ping_timeout": PING_S,
            "max_size": MESSAGE_MAX_BYTES,
            "max_queue": 2,
            "write_limit": PIECE_BYTES,
            "logger": QUIET,
        }
        try:
            if url == UNIX and self._socket_path:
                return WebsocketUplink(await unix_connect(self._socket_path, f"ws://localhost{STREAMS}", **options))
            if url.startswith("https://"):
                context = await asyncio.to_thread(self._context)
                there = f"wss://{url.removeprefix('https://').rstrip('/')}{STREAMS}"
                return WebsocketUplink(await connect(there, ssl=context, proxy=None, **options))  # type: ignore[arg-type]
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
            raise UplinkRefused(
                f"Host {self._host} does not reach the API at {url} with its console: {error}."
            ) from None
        raise UplinkRefused(f"Host {self._host} takes its consoles to https://HOST:PORT alone, not to {url[:128]!r}.")

    def _context(self) -> ssl.SSLContext:
        """Raises UplinkRefused."""
        if not self._tls_path:
            raise UplinkRefused(
                f"Host {self._host} has no certificate, with which a console is carried: let it join with "
                "'droveway agent join', or set tls_path of its [[host]]."
            )
        own = Path(self._tls_path)
        try:
            context = ssl.create_default_context(cafile=str(own / "ca.pem"))
            context.load_cert_chain(own / "current" / "cert.pem", own / "current" / "key.pem")
        except OSError as error:  # of ssl as well
            why = error.strerror or error
            raise UplinkRefused(f"Host {self._host} cannot use its certificate in {self._tls_path}: {why}.") from None
        return context
