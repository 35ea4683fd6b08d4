"""What the network agent tells the process that serves metadata, over a stream socket: a length and a message; each is
answered before the next. Sockets travel beside a message. The agent trusts nothing of the answers but their form: that
process talks to guests."""

from __future__ import annotations

from typing import Annotated, cast

import msgspec

from droveway.domain.wire import GuestPasswords, ShortText

HEADER_BYTES = 4
FRAME_MAX_BYTES = 4 * 1024 * 1024
SOCKETS_MAX = 4  # beside one message


class Look(msgspec.Struct, frozen=True, tag="look"):
    """Ask only."""


class Listen(msgspec.Struct, frozen=True, tag="listen"):
    """With its listening sockets. `place`: what tells this making of the network from the one before."""

    network_id: ShortText
    place: ShortText


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    network_id: ShortText


class Addresses(msgspec.Struct, frozen=True, tag="addresses"):
    """All of them: whose an address of a network is."""

    guests: dict[str, dict[str, str]]


class Documents(msgspec.Struct, frozen=True, tag="documents"):
    """Of one guest, by path; in place of those that it had. None: it has none any more."""

    instance_id: ShortText
    digest: ShortText
    by_path: dict[str, bytes] | None

    def __repr__(self) -> str:
        return f"Documents({self.instance_id}, {self.digest})"  # user data may hold secrets


class ReadPasswords(msgspec.Struct, frozen=True, tag="passwords"):
    """Ask only: what guests have set and have not been told back yet."""


class End(msgspec.Struct, frozen=True, tag="end"):
    pass


class State(msgspec.Struct, frozen=True, tag="state"):
    """The answer to Look: what is served. `networks`: their places; `guests`: the digests of their documents;
    `addresses`: whose they are, as in Addresses."""

    version: ShortText
    networks: dict[ShortText, ShortText]
    guests: dict[ShortText, ShortText]
    addresses: dict[ShortText, dict[ShortText, ShortText]]


class Written(msgspec.Struct, frozen=True, tag="written"):
    """The answer to ReadPasswords, by instance."""

    passwords: GuestPasswords

    def __repr__(self) -> str:
        return f"Written({', '.join(self.passwords)})"  # no log has passwords


class Done(msgspec.Struct, frozen=True, tag="done"):
    reason: Annotated[str, msgspec.Meta(max_length=1024)] = ""  # why not; empty: it is


Message = Look | Listen | Leave | Addresses | Documents | ReadPasswords | End
Reply = State | Written | Done
_encode = msgspec.msgpack.Encoder().encode
_message, _reply = msgspec.msgpack.Decoder(Message), msgspec.msgpack.Decoder(Reply)


def frame(message: Message | Reply) -> bytes:
    body = _encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def message_of(body: bytes) -> Message:
    """Raises DecodeError."""
    return cast(Message, _message.decode(body))


def reply_of(body: bytes) -> Reply:
    """Raises DecodeError."""
    return cast(Reply, _reply.decode(body))
