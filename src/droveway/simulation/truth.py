"""What truly happened in the world, and when: what the judge says of it is held against this."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from droveway.simulation.loop import SimLoop

What = tuple[str, ...]  # a kind of trouble, and whom it befell: a host, a control, or both

OFF, HEART_DEAD, HEART_HUNG = "off", "heart dead", "heart hung"  # of a host
AGENT_DEAD, AGENT_HUNG = "agent dead", "agent hung"  # of a host and one of its services
CUT, BEAT_LOST = "cut", "beat lost"  # of a control and a host
PARTED, ASK_LOST = "parted", "ask lost"  # of a control, a host and one of its services; parted: until the next hello
OF_SERVICE = {AGENT_DEAD, AGENT_HUNG, PARTED, ASK_LOST}
# Of a control. Deaf: nothing arrives, its own echo neither. Apart: it has a broker, and no agent is on it. Broker away:
# it knows, and its detector's time stands still.
DEAF, APART, STOPPED, CONTROL_DEAD, BROKER_AWAY = "deaf", "apart", "stopped", "control dead", "broker away"
CUT_OFF = "cut off"  # of a host, from the hypervisors of the others
DECLARED = "declared gone"  # of a host, until all have heard that it is let in again
SILENCE = "silence"  # of the whole world


class FaultPeriods:
    """Spells of trouble, each from when to when."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._spells: dict[What, list[tuple[float, float]]] = {}

    def begin(self, *what: str) -> None:
        """It is so from now on."""
        spells = self._spells.setdefault(what, [])
        if not spells or spells[-1][1] < inf:
            spells.append((self._loop.time(), inf))

    def end(self, *what: str) -> None:
        spells = self._spells.get(what)
        if spells and spells[-1][1] == inf:
            spells[-1] = (spells[-1][0], self._loop.time())

    def around(self, before_s: float, after_s: float, *what: str) -> None:
        """It happened now, and is felt from before until after."""
        now_s = self._loop.time()
        self._spells.setdefault(what, []).append((now_s - before_s, now_s + after_s))

    def within(self, since_s: float, until_s: float, *what: str) -> list[tuple[float, float]]:
        """Its spells in that span, the newest first."""
        found = []
        for begin_s, end_s in reversed(self._spells.get(what, ())):
            if end_s < since_s:
                break
            if begin_s <= until_s:
                found.append((begin_s, end_s))
        return found

    def was(self, since_s: float, until_s: float, *whats: What) -> bool:
        """Whether any of these was so at any time of that span."""
        return any(self.within(since_s, until_s, *what) for what in whats)

    def length_s(self, since_s: float, until_s: float, whats: Iterable[What]) -> float:
        """For how much of that span at least one of these was so."""
        spells = sorted(spell for what in whats for spell in self.within(since_s, until_s, *what))
        covered_s, upto_s = 0.0, since_s
        for begin_s, end_s in spells:
            covered_s += max(0.0, min(end_s, until_s) - max(begin_s, upto_s))
            upto_s = max(upto_s, end_s)
        return covered_s

    def count(self, host: str, service: str) -> int:
        """How often something befell that service, its host or everybody; not what befell another one there."""
        return sum(
            len(spells)
            for what, spells in self._spells.items()
            if (host in what and (what[0] not in OF_SERVICE or what[-1] == service))
            or what[0] in {DEAF, APART, STOPPED, SILENCE}
        )
