"""Sockets at which this program listens, and how uvicorn is set up behind each."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from droveway.domain.faults import WrongConfiguration

if TYPE_CHECKING:
    import uvicorn

MESSAGE_MAX_BYTES = 1 << 20  # of a websocket
PING_S = 20.0  # a websocket whose client does not answer one within as long again ends


def listen_at(address: str, key: str = "api.listen") -> socket.socket:
    """Raises WrongConfiguration."""
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


def listen_on_machine(path: Path) -> socket.socket:
    """A unix socket for the user of this program alone. Raises WrongConfiguration."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(OSError):
        path.unlink()  # of a run that was killed; that no other program has it, the lock beside the database says
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(256)
    except OSError as error:
        listener.close()
        why = error.strerror or error
        raise WrongConfiguration(f"{path} cannot be listened at: {why}; choose a shorter state_path") from None
    return listener


def settings(app: Any, ends_s: int) -> uvicorn.Config:
    """`ends_s`: how long requests under way may go on once the program is told to stop. Nothing that uvicorn would log
    of a request is logged: its lines have whole URLs."""
    import uvicorn

    return uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_MAX_BYTES,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        timeout_graceful_shutdown=ends_s,
    )
