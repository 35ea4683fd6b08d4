"""The process that guests ask for what they are told of themselves. It outlives the network agent that started it.

It is given its sockets and its documents by the agent, and can do nothing else: it has no rights, no network of its own
and no files. What it imports it has imported before it gives all that up.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import socket
import sys

import msgspec

from droveway.agents.metadata import messages
from droveway.agents.metadata.messages import (
    FRAME_MAX_BYTES,
    HEADER_BYTES,
    SOCKETS_MAX,
    Addresses,
    Documents,
    Done,
    End,
    Leave,
    Listen,
    Look,
    Message,
    ReadPasswords,
    Reply,
    State,
    Written,
)
from droveway.agents.metadata.service import CONNECTIONS_MAX, Service

NOBODY = 65_534
FILES_MAX = CONNECTIONS_MAX + 8192  # two a network
_CLONE_NEWNET, _PR_SET_NO_NEW_PRIVS = 0x40000000, 38
CHUNK_BYTES = 65_536


class AgentLine:
    """One connection of an agent. A newer one takes its place."""

    def __init__(self, connection: socket.socket, service: Service, ended: asyncio.Event) -> None:
        self._socket, self._service, self._ended = connection, service, ended
        self._received = bytearray()
        self._sockets: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._loop.add_reader(connection, self._arrived.set)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for descriptor in self._sockets:
            os.close(descriptor)

    async def run(self) -> None:
        """Until it ends."""
        try:
            while True:
                message = await self._next()
                if message is None:
                    return
                reply = await self._handle(message)
                await self._loop.sock_sendall(self._socket, messages.frame(reply))
                if isinstance(message, End):
                    self._ended.set()
        except (OSError, msgspec.DecodeError):
            return
        finally:
            self.close()

    async def _next(self) -> Message | None:
        """None: the agent has ended."""
        while True:
            if len(self._received) >= HEADER_BYTES:
                size = int.from_bytes(self._received[:HEADER_BYTES], "big")
                if size > FRAME_MAX_BYTES:
                    return None
                if len(self._received) >= HEADER_BYTES + size:
                    body = bytes(self._received[HEADER_BYTES : HEADER_BYTES + size])
                    del self._received[: HEADER_BYTES + size]
                    return messages.message_of(body)
            await self._arrived.wait()
            self._arrived.clear()
            try:
                data, sockets, _, _ = socket.recv_fds(self._socket, CHUNK_BYTES, SOCKETS_MAX)
            except BlockingIOError:
                continue
            self._sockets += sockets
            if not data:
                return None
            self._received += data

    async def _handle(self, message: Message) -> Reply:
        service = self._service
        match message:
            case Look():
                digests = {instance_id: digest for instance_id, (digest, _) in service.documents.items()}
                return State(service.version, service.places, digests, service.addresses)
            case Listen(network_id, place):
                given, self._sockets = self._sockets, []
                await service.listen(network_id, place, given)
            case Leave(network_id):
                service.leave(network_id)
            case Addresses(guests):
                service.addresses = guests
            case Documents(instance_id, digest, by_path):
                service.set_documents(instance_id, digest, by_path)
            case ReadPasswords():
                return Written(service.passwords.waiting())
            case End():
                for network_id in list(service.places):
                    service.leave(network_id)
        return Done()


async def serve(listening: socket.socket, version: str) -> None:
    """Until an agent says that it is to end."""
    service, ended = Service(version), asyncio.Event()
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    lines: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        line: asyncio.Task[None] | None = None
        while True:
            connection, _ = await loop.sock_accept(listening)
            connection.setblocking(False)
            if line is not None:
                line.cancel()
            line = asyncio.create_task(AgentLine(connection, service, ended).run())
            lines.add(line)
            line.add_done_callback(lines.discard)

    accepting = asyncio.create_task(accept())
    await ended.wait()
    accepting.cancel()


def give_up_rights(empty: str) -> None:
    """`empty`: a directory that is to be all there is. Where this is not root there is nothing to give up."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.geteuid() != 0:
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES_MAX if most == resource.RLIM_INFINITY else min(FILES_MAX, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace of its own cannot be had")
    os.chroot(empty)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    """Its arguments are the number of the socket at which it waits for the agent, an empty directory, and which version
    of this program it is."""
    descriptor, empty, version = sys.argv[-3:]
    listening = socket.socket(fileno=int(descriptor))
    with asyncio.Runner() as runner:
        runner.get_loop()
        give_up_rights(empty)
        runner.run(serve(listening, version))
