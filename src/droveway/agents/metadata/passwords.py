"""The passwords that guests set, each once: POST /openstack/2013-04-04/password. A guest is answered when it is told
its own back, which is when its users can read it, and not before.

| it is told                     | what its guest posted is      |
|--------------------------------|-------------------------------|
| the same                       | stored: 200                   |
| another one, now or meanwhile  | a second one: 409             |
| nothing within HOLD_S          | on its way; asked again: 503  |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

PATH = "openstack/latest/password"
MAX_BYTES = 1020
HOLD_S = 10.0
WAITING_MAX = 1000  # guests whose password is on its way
Answer = tuple[int, bytes]
Reply = Callable[[int, bytes], None]
STORED: Answer = 200, b""
SECOND: Answer = 409, b"a password has been set already; it is deleted with os-server-password"
ON_ITS_WAY: Answer = 503, b"it is not stored yet: ask again"
_CONTROL = frozenset(range(32)) - {9, 10, 13} | {127}


def is_password(body: bytes) -> bool:
    """Whether the users of the server can be shown that."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    return 0 < len(body) <= MAX_BYTES and not any(ord(one) in _CONTROL for one in text)


class Passwords:
    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}  # by instance
        self._held: dict[str, list[tuple[Reply, asyncio.TimerHandle]]] = {}

    def waiting(self) -> dict[str, str]:
        return {instance_id: password.decode() for instance_id, password in self._waiting.items()}

    def post(self, instance_id: str, stored: bytes, body: bytes, reply: Reply) -> Answer | None:
        """None: `reply` gives the answer later. `stored`: the password that the guest is shown."""
        if stored:
            return STORED if stored == body else SECOND
        if self._waiting.get(instance_id, body) != body:
            return SECOND
        if instance_id not in self._waiting and len(self._waiting) >= WAITING_MAX:
            return ON_ITS_WAY
        self._waiting[instance_id] = body
        timer = asyncio.get_running_loop().call_later(HOLD_S, self._too_late, instance_id, reply)
        self._held.setdefault(instance_id, []).append((reply, timer))
        return None

    def _too_late(self, instance_id: str, reply: Reply) -> None:
        left = [one for one in self._held.get(instance_id, ()) if one[0] is not reply]
        self._held[instance_id] = left
        reply(*ON_ITS_WAY)

    def note_documents(self, instance_id: str, documents: Mapping[str, bytes] | None) -> None:
        """What the guest is told from now on; None: it is no longer here."""
        password = b"" if documents is None else documents.get(PATH, b"")
        if documents is not None and not password:
            return
        posted = self._waiting.pop(instance_id, None)
        for reply, timer in self._held.pop(instance_id, ()):
            timer.cancel()
            reply(*(ON_ITS_WAY if documents is None else STORED if posted == password else SECOND))
