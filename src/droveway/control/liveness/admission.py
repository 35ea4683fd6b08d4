"""Caches what operators declared of hosts, and filters notices before the observer: one declared gone is not admitted.

The declarations are in the store (store/fleet/declared.py), and are read again every LOOK_S: another control may
have written them.
"""

from __future__ import annotations

import structlog

from droveway.control.engine.nudges import Nudges, wait
from droveway.control.liveness.observer import Observer
from droveway.domain.faults import Busy, Unreachable
from droveway.ports.bus import AgentDisconnected, HeartDisconnected, Hello, Notice, Welcome
from droveway.store.engine.transaction import Store
from droveway.store.fleet import declared

log = structlog.get_logger("droveway.admission")
LOOK_S = 10.0
RETRY_S = 30.0  # after which a refused agent says hello again


class DeclaredGone(Unreachable):
    """An operator declared this host gone: it is sent no command, and no saga waits for it."""


class Admission:
    """`gone`: the hosts that are not admitted, each with the reason given. `returning`: those that are readmitted, and
    have not been compared with the store yet."""

    def __init__(self, store: Store, nudges: Nudges, observer: Observer, report_interval_s: float) -> None:
        self._store, self._nudges, self._observer = store, nudges, observer
        self._interval_s = report_interval_s
        self.gone: dict[str, str] = {}
        self.returning: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        with self._nudges.listen(declared.CHANGED) as woken:
            while True:
                try:
                    await self.look()
                except Busy as fault:
                    log.info("declarations of hosts not read yet", because=fault.reason)
                await wait(woken, LOOK_S)

    async def look(self) -> None:
        """Raises Busy."""
        words = await self._store.read(declared.words)
        gone = {word.host: word.because for word in words if word.declared == declared.GONE}
        returning = {word.host for word in words if word.declared == declared.READMITTED}
        changed = (gone.keys() ^ self.gone.keys()) | (returning ^ self.returning)
        self.gone, self.returning = gone, returning
        for host in sorted(changed):
            self._nudges.call(f"host:{host}")  # sagas that wait for it
        if changed:
            self._nudges.call("guests")

    async def check(self, host: str) -> None:
        """Raises DeclaredGone, as the store has it now: another control may have readmitted the host, and who does not
        ask a host that runs its guests takes them for gone. Raises Busy."""
        if host in self.gone:
            await self.look()
        if host in self.gone:
            raise DeclaredGone(f"{host} was declared gone by an operator: {self.gone[host]}")

    def on_notice(self, notice: Notice) -> Welcome | None:
        """Before the observer receives it."""
        if not self.gone or notice.host not in self.gone or isinstance(notice, (AgentDisconnected, HeartDisconnected)):
            return self._observer.on_notice(notice)
        self._observer.note_heard()
        if not isinstance(notice, Hello):
            return None
        reason = (
            f"this host was declared gone by an operator ({self.gone[notice.host]}); "
            f"'droveway host readmit {notice.host}' lets it in again"
        )
        return Welcome(self._interval_s, accepted=False, reason=reason, retry_after_s=RETRY_S)
