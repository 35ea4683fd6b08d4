"""A guest that says a number by UDP every 10 ms, and who listens: how long it was silent as others see it, and whether
a word of it was lost. The guest's half is lab/guest/beacon.c.
"""

from __future__ import annotations

import base64
import itertools
import select
import socket
import struct
import threading
import time
from typing import NamedTuple

from lab import network
from lab.processes import wait_for

PORT, EVERY_MS = 7777, 10
OUTSIDE, LINK_LOCAL = "172.24.4.1", "ff02::1%eth0"
HEARD_S, SETTLED = 120.0, 20  # words in a row
# With an address it speaks through its router to somebody outside; without one to whoever is on its link.
SPEAKS = f"""if ip route | grep -q default; then to={OUTSIDE}; else to={LINK_LOCAL}; fi
beacon $to {PORT} {EVERY_MS} &
"""
SO_TIMESTAMPNS = 35  # of Linux, which the module socket does not name
_STAMP = struct.Struct("@ll")  # its timespec


def user_data(more: str = "") -> str:
    """As the API takes it: the guest speaks from then on."""
    return base64.b64encode(f"#!/bin/sh\n{SPEAKS}{more}".encode()).decode()


class Heard(NamedTuple):
    """Since the look before. `lost`: numbers that were said and did not arrive; a word that comes twice is no loss."""

    silence_ms: float
    lost: int
    words: int


class Listener:
    """In that network namespace, from when it is made until `end`; it takes the kernel's time of each packet, so that
    a busy listener is no silence."""

    def __init__(self, namespace: str) -> None:
        with network.inside(namespace):
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind(("::", PORT))
        self._words: list[tuple[float, int]] = []
        self._looked, self._ends = 0, threading.Event()
        self._thread = threading.Thread(target=self._listen, name="beacons", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ends.is_set():
            if not select.select([self._socket], [], [], 0.2)[0]:
                continue
            text, told, _, _ = self._socket.recvmsg(64, 64)
            seconds, nanoseconds = _STAMP.unpack(told[0][2][: _STAMP.size])
            self._words.append((seconds + nanoseconds / 1e9, int(text)))

    def wait(self) -> None:
        """Until the guest speaks."""
        at = len(self._words)
        assert wait_for(lambda: len(self._words) > at + SETTLED, HEARD_S), "the guest says nothing"
        self._looked = len(self._words)

    def look(self) -> Heard:
        """Once it has said something afresh."""
        at = len(self._words)
        assert wait_for(lambda: len(self._words) > at + SETTLED, HEARD_S), "the guest says nothing more"
        words = self._words[max(0, self._looked - 1) :]
        self._looked = len(self._words)
        silence_s = max(after - before for (before, _), (after, _) in itertools.pairwise(words))
        numbers = {number for _, number in words}
        return Heard(silence_s * 1000, max(numbers) + 1 - min(numbers) - len(numbers), len(words))

    def during(self, quiet_s: float) -> Heard:
        """Of an idle time: what is left when nothing is done."""
        self.look()
        time.sleep(quiet_s)
        return self.look()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()
        self._socket.close()
