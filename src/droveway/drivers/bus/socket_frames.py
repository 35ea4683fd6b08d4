"""Frames of the socket bus, and the writing half of one of its connections."""

from __future__ import annotations

import asyncio

import msgspec

from droveway.drivers.bus.decoding import decoder
from droveway.ports.bus import (
    MAX_MESSAGE_BYTES,
    AgentDisconnected,
    Beat,
    Command,
    GuestChanged,
    Hello,
    Report,
    ServiceReport,
    Welcome,
)
from droveway.ports.replies import Answer

WRITE_BUFFER_MAX = 16 * 1024 * 1024


class CommandFrame(msgspec.Struct, frozen=True, tag="command"):
    number: int
    command: Command


class AnswerFrame(msgspec.Struct, frozen=True, tag="answer"):
    number: int
    answer: Answer


FromAgent = Hello | Beat | Report | ServiceReport | GuestChanged | AgentDisconnected | AnswerFrame


FromControl = Welcome | CommandFrame


decode_from_agent = decoder(FromAgent)


decode_from_control = decoder(FromControl)


encode = msgspec.msgpack.Encoder().encode


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame; EOFError at the end, ValueError when it is beyond the bound."""
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {length} bytes is over the bound of {MAX_MESSAGE_BYTES}")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise EOFError from None


class Peer:
    """One connection's writing half: bounded, and silent once it is closed."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.dropped = 0

    def send(self, message: object) -> bool:
        data = encode(message)
        transport = self._writer.transport
        full = transport.get_write_buffer_size() + len(data) > WRITE_BUFFER_MAX
        if full or transport.is_closing() or len(data) > MAX_MESSAGE_BYTES:
            self.dropped += 1
            return False
        self._writer.write(len(data).to_bytes(4, "big") + data)
        return True

    def close(self) -> None:
        self._writer.close()
