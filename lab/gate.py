"""Servers on this machine's loopback, as the lab's hosts reach them: on the lab's own address, at the same ports.

`python -m lab.gate NAMESPACE ADDRESS PORT...`. The listening socket is made in the lab's network namespace, where the
bridge between the hosts ends, and stays there; each connection is carried to 127.0.0.1 in the namespace of whoever
started this. So nothing of the lab appears in the machine's own network, and a host whose cable is pulled is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

from lab import network

PIECE_BYTES = 256 * 1024
CONNECTIONS_MAX = 256


def listen(namespace: str, address: str, port: int) -> socket.socket:
    """Raises NetworkFailed and OSError."""
    with network.inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(CONNECTIONS_MAX)
    return made


async def carry(listener: socket.socket, port: int) -> None:
    """Until cancelled."""
    count = 0

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            if count <= CONNECTIONS_MAX:
                with contextlib.suppress(OSError):
                    await _join(reader, writer, *await asyncio.open_connection("127.0.0.1", port))
        finally:
            count -= 1
            writer.close()

    server = await asyncio.start_server(on_connection, sock=listener, limit=PIECE_BYTES)
    async with server:
        await server.serve_forever()


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Both ways, until one side has ended."""
    ways = [asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


def main() -> None:
    namespace, address, *ports = sys.argv[1:]

    async def carry_all() -> None:
        await asyncio.gather(*(carry(listen(namespace, address, int(port)), int(port)) for port in ports))

    asyncio.run(carry_all())


if __name__ == "__main__":
    main()
