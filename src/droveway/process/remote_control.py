"""Controls in other processes, asked over the bus. The failure detector is asked first: it knows why."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

from droveway.domain import faults
from droveway.domain.faults import NotFound, Unreachable
from droveway.ports.asking import QuestionSignature, Recipient
from droveway.ports.peer_bus import PeerBus, Question
from droveway.store.engine.transaction import Store, Tx
from droveway.store.work import leases

CONTROLS_ASKED_MAX = 8  # one after the other; one that is not there costs no waiting
JOURNEY_S = 1.0  # how much longer than control itself takes is waited for its answer


class RemoteControl:
    """`ask` is for ports/asking.py: with it every question of a protocol is answered by a control elsewhere."""

    def __init__(self, store: Store, peers: PeerBus) -> None:
        self._store, self._peers = store, peers

    async def ask(self, about: QuestionSignature, arguments: tuple[Any, ...]) -> Any:
        """Of whichever control answers: the one that the first argument names, if the question says so, then the
        failure detector, then the others. Raises Unreachable when none does, and what the control raised."""
        first = arguments[0] if about.recipient is Recipient.NAMED else ""
        known = await self._store.read(_controls)
        names = sorted(known, key=lambda name: (name != first, name != known[0]))
        last = "none has ever started"
        for name in names[:CONTROLS_ASKED_MAX]:
            try:
                return await self.ask_one(name, about, arguments)
            except _ControlUnreachable as silent:
                last = silent.reason
        raise Unreachable(f"No control answers ({last}): see that one runs, and reaches the same broker.")

    async def ask_one(self, control: str, about: QuestionSignature, arguments: tuple[Any, ...]) -> Any:
        """Of that control. Raises Unreachable, and what it raised itself."""
        question = Question(about.name, tuple(about.pack(arguments)))
        try:
            reply = await self._peers.ask(control, question, about.within_s + JOURNEY_S)
        except Unreachable as fault:
            raise _ControlUnreachable(fault.reason) from None
        if reply.fault:
            raise faults.of_name(reply.fault, reply.reason)
        return about.unpack_result(reply.value)


class _ControlUnreachable(Unreachable):
    """The control itself did not answer; a host that it asked would be Unreachable alone."""


class DetectorOwner(Protocol):
    """The control that is the failure detector, by name; empty while there is none."""

    @property
    def owner(self) -> str: ...


class LocalControl:
    """The control in this process, and where another one knows better, that one."""

    def __init__(self, answers: Any, name: str, duty: DetectorOwner, remote: RemoteControl) -> None:
        self._answers, self._name, self._duty, self._remote = answers, name, duty, remote

    async def ask(self, about: QuestionSignature, arguments: tuple[Any, ...]) -> Any:
        own = getattr(self._answers, about.method)
        if about.recipient is Recipient.DETECTOR and self._duty.owner not in ("", self._name):
            with contextlib.suppress(Unreachable):
                return await self._remote.ask_one(self._duty.owner, about, arguments)
        try:
            return await own(*arguments)
        except NotFound:
            if about.recipient is not Recipient.NAMED or arguments[0] == self._name:
                raise
        return await self._remote.ask(about, arguments)


def _controls(tx: Tx) -> list[str]:
    """The failure detector, if there is one, then every other control that ever held a lease, by name."""
    rows = leases.listing(tx)
    first = [row["owner"] for row in rows if row["name"] == leases.DETECTOR and row["owner"]]
    others = sorted(
        row["name"].removeprefix(leases.CONTROLS) for row in rows if row["name"].startswith(leases.CONTROLS)
    )
    return [*first, *(name for name in others if name not in first)]
