"""`droveway console SERVER`: the serial console of a server in this terminal.

The terminal is raw meanwhile, so that every key reaches the server, Ctrl-C among them; Ctrl-] leaves, as with telnet
and virsh. Where the input is no terminal it is sent, and what comes back within a moment after its end is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

import click

from droveway.cli.commands import Command
from droveway.cli.session import Session, address

SERVERS = "/compute/v2.1/servers"
LEAVE = b"\x1d"  # Ctrl-]
PIECE_BYTES = 4096
AFTERWARDS_S = 3.0  # for what comes back, after the end of an input that is no terminal
OPENS_S, CLOSES_S = 10.0, 2.0


@click.command(cls=Command, example="droveway console g1")
@click.argument("server")
def console(server: str) -> None:
    """The serial console of SERVER (its name or id), here. Ctrl-] leaves."""
    session = Session()
    server_id = _id_of(session, server)
    wanted = {"os-getSerialConsole": {"type": "serial"}}
    url = session.post(address(SERVERS, server_id, "action"), wanted)["console"]["url"]
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        click.echo(f"Connected to {server}. Press Enter where nothing is shown; Ctrl-] leaves.", err=True)
    with _raw() if is_terminal else contextlib.nullcontext():
        reason = asyncio.run(_carry(url, session, is_terminal=is_terminal))
    click.echo("", err=True)
    if reason:
        raise click.ClickException(reason)


def _id_of(session: Session, server: str) -> str:
    """Raises ClickException."""
    found = session.get(address(SERVERS, name=server))["servers"]
    ids = [one["id"] for one in found if one["name"] == server]
    if len(ids) > 1:
        raise click.ClickException(f"{len(ids)} servers are named {server}: give the id of one ({', '.join(ids[:8])})")
    return str(ids[0]) if ids else str(session.get(address(SERVERS, server))["server"]["id"])


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Every key goes to the server; afterwards the terminal is as it was."""
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def _carry(url: str, session: Session, *, is_terminal: bool) -> str:
    """Until the user leaves, or the session ends: then with the sentence why."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake

    there = url.replace("http", "ws", 1)
    options: dict[str, Any] = {"ssl": session.tls} if there.startswith("wss:") else {}
    options |= {"subprotocols": ["binary"], "compression": None}
    try:
        async with connect(there, open_timeout=OPENS_S, close_timeout=CLOSES_S, **options) as socket:
            typing = asyncio.create_task(_type(socket, is_terminal=is_terminal))
            showing = asyncio.create_task(_show(socket))
            try:
                await asyncio.wait({typing, showing}, return_when=asyncio.FIRST_COMPLETED)
                if not showing.done() and not is_terminal:
                    await asyncio.wait({showing}, timeout=AFTERWARDS_S)
                if not showing.done():
                    return ""
            finally:
                for task in (typing, showing):
                    task.cancel()
                await asyncio.wait({typing, showing})
            return socket.close_reason or "the session is over"
    except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
        return f"the console cannot be opened: {error}"


async def _type(socket: Any, *, is_terminal: bool) -> None:
    """Until the user leaves."""
    loop, keys = asyncio.get_running_loop(), asyncio.Queue[bytes]()
    loop.add_reader(sys.stdin.fileno(), lambda: keys.put_nowait(os.read(sys.stdin.fileno(), PIECE_BYTES)))
    try:
        while data := await keys.get():
            before, leaves, _ = data.partition(LEAVE) if is_terminal else (data, b"", b"")
            if before:
                await socket.send(before)
            if leaves:
                return
    finally:
        loop.remove_reader(sys.stdin.fileno())


async def _show(socket: Any) -> None:
    async for data in socket:
        sys.stdout.buffer.write(data if isinstance(data, bytes) else data.encode())
        sys.stdout.buffer.flush()
