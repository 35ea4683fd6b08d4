"""The few calls of etcd's gRPC API that a member needs, with their protobuf messages written by hand.

No generated stubs: eight messages of two or three fields each do not pay for a compiler in the build. (Its HTTP gateway
would need none of this, but a beat over it costs ten times the CPU.) Field numbers are those of etcd's rpc.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import msgspec

from droveway.config.tls import tls_context

Fields = dict[int, list[Any]]
DELETE = 1  # Event.type; 0 is a put
MESSAGE_BYTES_MAX = 64 << 20
VARINT_BITS = 63


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def text(field: int, value: bytes) -> bytes:
    """A string, bytes or a message inside a message."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def decode(message: bytes) -> Fields:
    """Every field's values in order; ValueError for what is no message of this API."""
    at, fields = 0, Fields()
    try:
        while at < len(message):
            tag, at = _read_varint(message, at)
            if tag & 7 == 0:
                value: Any
                value, at = _read_varint(message, at)
            elif tag & 7 == 2:
                length, at = _read_varint(message, at)
                value, at = message[at : at + length], at + length
                if at > len(message):
                    raise IndexError
            else:
                raise ValueError(f"wire type {tag & 7}")
            fields.setdefault(tag >> 3, []).append(value)
    except IndexError:
        raise ValueError("the message is cut off") from None
    return fields


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > VARINT_BITS:
            raise ValueError("a number is longer than any number of this API")


class Change(msgspec.Struct, frozen=True):
    key: bytes
    is_gone: bool


class LeaseGone(Exception):
    """The lease ran out, or was revoked."""


class Access(NamedTuple):
    """How a server is reached, and as whom. Without credentials there is no TLS."""

    credentials: Any = None  # grpc.ChannelCredentials
    user: str = ""
    password: str = ""


OPEN = Access()


def credentials(tls_ca: str, tls_cert: str, tls_key: str) -> Any:
    """None without an authority. Raises WrongConfiguration."""
    if not tls_ca:
        return None
    tls_context("etcd", tls_ca, tls_cert, tls_key)  # what is wrong with the files is said now
    ca, cert, key = (Path(path).read_bytes() if path else None for path in (tls_ca, tls_cert, tls_key))
    return grpc.ssl_channel_credentials(ca, key, cert)


class EtcdConnection:
    """One channel to one server. What fails raises grpc.RpcError, TimeoutError or LeaseGone."""

    def __init__(self, address: str, timeout_s: float, access: Access = OPEN) -> None:
        # Reconnecting is the driver's own affair: grpc's back-off would grow to minutes, shared by all channels.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        if access.credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(address, access.credentials, options=options)
        self._access = access
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._timeout_s = timeout_s
        self._keepalive: Any = None

    async def close(self) -> None:
        await self._channel.close()

    async def log_in(self) -> None:
        """First, where there is a user. The token lives as long as it is used and the server is not started again; the
        next connection has a new one."""
        if self._access.user:
            reply = await self._ask(
                "Auth/Authenticate", text(1, self._access.user.encode()) + text(2, self._access.password.encode())
            )
            self._metadata = (("token", reply[2][0].decode("ascii")),)

    async def grant(self, ttl_s: int) -> tuple[int, int]:
        """A new lease: its id, and the TTL that was granted."""
        reply = await self._ask("Lease/LeaseGrant", number(1, ttl_s))
        return reply[2][0], reply.get(3, [ttl_s])[0]

    async def revoke(self, lease: int) -> None:
        await self._ask("Lease/LeaseRevoke", number(1, lease))

    async def keep_alive(self, lease: int) -> bool:
        """False when there is no such lease any more."""
        if self._keepalive is None:
            self._keepalive = self._channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")(metadata=self._metadata)
        with _ended():
            async with asyncio.timeout(self._timeout_s):
                await self._keepalive.write(number(1, lease))
                answer = await self._keepalive.read()
        if not isinstance(answer, bytes):
            raise TimeoutError("etcd ended the stream")
        return bool(decode(answer).get(3, [0])[0])

    async def put(self, key: bytes, value: bytes, lease: int) -> int | None:
        """The lease that held the key before; None when there was no such key."""
        try:
            reply = await self._ask("KV/Put", text(1, key) + text(2, value) + number(3, lease) + number(4, 1))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise LeaseGone(error.details()) from None
            raise
        return decode(reply[2][0]).get(6, [0])[0] if 2 in reply else None

    async def delete(self, key: bytes) -> None:
        await self._ask("KV/DeleteRange", text(1, key))

    async def keys(self, prefix: bytes) -> tuple[int, list[bytes]]:
        """The revision at which these were the keys that begin so."""
        reply = await self._ask("KV/Range", text(1, prefix) + text(2, after(prefix)) + number(8, 1))
        return decode(reply[1][0])[3][0], [decode(pair)[1][0] for pair in reply.get(2, [])]

    async def watch(self, prefix: bytes, revision: int) -> AsyncIterator[list[Change]]:
        """Every change from that revision on."""
        call = self._channel.stream_stream("/etcdserverpb.Watch/Watch")(metadata=self._metadata)
        with _ended():
            await call.write(text(1, text(1, prefix) + text(2, after(prefix)) + number(3, revision)))
        while isinstance(answer := await call.read(), bytes):
            reply = decode(answer)
            if reply.get(4, [0])[0]:
                break  # cancelled: the revision has been compacted away
            events = [decode(event) for event in reply.get(11, [])]
            yield [Change(decode(e[2][0])[1][0], e.get(1, [0])[0] == DELETE) for e in events]
        raise TimeoutError("etcd ended the watch")

    async def _ask(self, method: str, request: bytes) -> Fields:
        with _ended():
            call = self._channel.unary_unary(f"/etcdserverpb.{method}")
            answer = await call(request, timeout=self._timeout_s, metadata=self._metadata)
        return decode(answer)


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """grpc cancels the calls that wait for an answer on a channel that is closed, though their tasks were
    not."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise TimeoutError("the connection to etcd was closed") from None
    except asyncio.InvalidStateError as error:  # the server has ended the stream that is written to
        raise TimeoutError(f"etcd ended the stream: {error}") from None


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with this prefix (which never ends in 0xff)."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
