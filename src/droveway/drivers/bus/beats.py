"""A beat as bytes, for the buses on which beats are hot: read in less than a microsecond.

    1 byte   format        1 byte   number of services        2 bytes  length of the identity
    identity: host, boot id and the services' names, UTF-8, zero bytes between them
    8 bytes  generation    8 bytes  counter    8 bytes  wall clock in microseconds
    4 bytes a service: its progress        2 bytes a service: its lateness in milliseconds
    at most 4 KiB, mostly none: a note for each service, UTF-8, zero bytes between them

Little-endian. Everything up to the generation stands still while a boot lasts, so a reader that has seen it once
compares it as one piece.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from droveway.ports.bus import Beat

FORMAT = 0xB1
FIRST_BYTE = bytes([FORMAT])
HEAD = struct.Struct("<BBH")
SERVICES_MAX, IDENTITY_MAX, NOTES_MAX_BYTES, NAME_MAX = 255, 0xFFFF, 4096, 255
PROGRESS_MAX, LATENESS_MAX, NUMBER_MAX = 0xFFFFFFFF, 0xFFFF, (1 << 64) - 1


@lru_cache(SERVICES_MAX + 1)
def _tail(services: int) -> struct.Struct:
    return struct.Struct(f"<QQQ{services}I{services}H")


@lru_cache(4096)
def _front(host: str, boot_id: str, services: tuple[str, ...]) -> bytes:
    words = (host, boot_id, *services)
    identity = "\0".join(words).encode()
    if any("\0" in one for one in words) or len(services) > SERVICES_MAX or len(identity) > IDENTITY_MAX:
        raise ValueError(f"the beat of {host} does not fit: {len(services)} services, {len(identity)} bytes of names")
    return HEAD.pack(FORMAT, len(services), len(identity)) + identity


def _notes(beat: Beat) -> bytes:
    notes = "\0".join(beat.notes).encode() if any(beat.notes) else b""
    if notes and (notes.count(0) != len(beat.services) - 1 or len(notes) > NOTES_MAX_BYTES):
        raise ValueError(f"the notes of {beat.host} do not fit: {len(beat.services)} services, {len(notes)} bytes")
    return notes


def _read_notes(count: int, notes: bytes) -> tuple[str, ...]:
    if len(notes) > NOTES_MAX_BYTES or notes.count(0) != count - 1:
        raise ValueError("the notes in a beat do not fit its services")
    return tuple(notes.decode().split("\0"))


def encode(beat: Beat) -> bytes:
    """Progress wraps at 2**32 (readers ask whether it moved, not how far), lateness stops at 65 s."""
    return (
        _front(beat.host, beat.boot_id, beat.services)
        + _tail(len(beat.services)).pack(
            beat.generation & NUMBER_MAX,
            beat.counter & NUMBER_MAX,
            beat.wall_us & NUMBER_MAX,
            *(one & PROGRESS_MAX for one in beat.progress),
            *(min(max(one, 0), LATENESS_MAX) for one in beat.lateness_ms),
        )
        + _notes(beat)
    )


def decode(payload: bytes) -> Beat:
    """The slow way: nothing is known. ValueError when it is no beat."""
    if len(payload) < HEAD.size:
        raise ValueError(f"{len(payload)} bytes are no beat")
    magic, count, length = HEAD.unpack_from(payload)
    at = HEAD.size + length
    end = at + _tail(count).size
    if magic != FORMAT or len(payload) < end:
        raise ValueError("not the format of a beat")
    host, *words = payload[HEAD.size : at].decode().split("\0")
    if not host or len(words) != 1 + count:
        raise ValueError("the names in a beat do not fit their number")
    if len(host) > NAME_MAX or max(map(len, words)) > NAME_MAX:
        raise ValueError(f"a name in a beat has more than {NAME_MAX} characters")
    generation, counter, wall_us, *numbers = _tail(count).unpack_from(payload, at)
    notes = _read_notes(count, payload[end:]) if len(payload) > end else ()
    return Beat(
        host,
        words[0],
        counter,
        generation,
        tuple(words[1:]),
        tuple(numbers[:count]),
        tuple(numbers[count:]),
        wall_us,
        notes,
    )


def identity(payload: bytes) -> bytes:
    """The piece of a beat that names its sender; it may be any bytes where the rest is no beat."""
    return payload[: HEAD.size + int.from_bytes(payload[2:4], "little")]


class BeatReader:
    """Reads the beats of those it knows, one sender a subject. The caller says whom it knows, which bounds this."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, str, str, tuple[str, ...], int, int, int, Callable[..., Any]]] = {}

    def read(self, subject: bytes, payload: bytes) -> Beat | None:
        """None when it is not a beat of the one that is known on that subject."""
        known = self._known.get(subject)
        if known is None:
            return None
        front, host, boot_id, services, at, size, middle, unpack = known
        if len(payload) < size or not payload.startswith(front):
            return None
        notes: tuple[str, ...] = ()
        if len(payload) > size:
            try:
                notes = _read_notes(len(services), payload[size:])
            except ValueError:
                return None
        numbers = unpack(payload, at)
        return Beat(
            host, boot_id, numbers[1], numbers[0], services, numbers[3:middle], numbers[middle:], numbers[2], notes
        )

    def know(self, subject: bytes, payload: bytes) -> None:
        """From now on the sender of this beat counts as known, instead of any other on that subject."""
        beat = decode(payload)
        tail = _tail(len(beat.services))
        front = _front(beat.host, beat.boot_id, beat.services)
        self._known[subject] = (
            front,
            beat.host,
            beat.boot_id,
            beat.services,
            len(front),
            len(front) + tail.size,
            3 + len(beat.services),
            tail.unpack_from,
        )

    def forget(self, subject: bytes) -> None:
        self._known.pop(subject, None)
