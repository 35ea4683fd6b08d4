"""What crosses heart.sock, and the bytes of a beat as the heart makes them.

Imported by the heart, so nothing here needs more than the small parts of the standard library. A beat's form is in
drivers/bus/beats.py, and a test holds the two together. At heart.sock each message is one packet, its first byte says:

    J  host, boot id and binary, UTF-8, zero bytes between them: a service has joined; the kernel says which process
    P  4 bytes progress, 2 bytes lateness in milliseconds: its loop turns
    I  4 bytes: the interval in milliseconds that control has handed out
    W  UTF-8: what its loop is in, which does not turn
    L  it leaves, in good order
"""

from __future__ import annotations

from struct import Struct

JOIN, PULSE, INTERVAL, WHERE, LEAVE = b"J", b"P", b"I", b"W", b"L"
PULSED, INTERVALLED = Struct("<IH"), Struct("<I")
MESSAGE_MAX_BYTES = 1024
WHERE_MAX_BYTES = 200
INTERVAL_MIN_MS, INTERVAL_MAX_MS = 10, 3_600_000
PATH_MAX_BYTES = 107  # what sockaddr_un holds

FORMAT = 0xB1
SERVICES_MAX = 255
NOTES_MAX_BYTES = 4096
LATENESS_MAX_MS, LEFT, DIED = 0xFFFD, 0xFFFE, 0xFFFF  # as in domain/liveness.py


def front(host: str, boot_id: str, binaries: tuple[str, ...]) -> bytes:
    """What does not change during a boot while no service joins."""
    identity = "\0".join((host, boot_id, *binaries)).encode()
    return bytes((FORMAT, len(binaries))) + len(identity).to_bytes(2, "little") + identity


def beat(
    front: bytes,
    generation: int,
    counter: int,
    wall_us: int,
    progress: list[int],
    lateness_ms: list[int],
    notes: list[str],
) -> bytes:
    """Notes that find no more room are left out."""
    count = len(progress)
    numbers = Struct(f"<QQQ{count}I{count}H").pack(generation, counter, wall_us, *progress, *lateness_ms)
    if not any(notes):
        return front + numbers
    packed: list[bytes] = []
    left_bytes = NOTES_MAX_BYTES - count + 1
    for note in notes:
        one = note.replace("\0", " ").encode(errors="replace")
        packed.append(one if len(one) <= left_bytes else b"")
        left_bytes -= len(packed[-1])
    return front + numbers + (b"\0".join(packed) if any(packed) else b"")
