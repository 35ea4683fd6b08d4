"""The hearts at control's end of the socket bus: whose beats count, and what the end of a connection means."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from droveway.drivers.bus import beats
from droveway.ports.bus import Beat, HeartDisconnected, Notice

log = structlog.get_logger("droveway.bus")
HOSTS_MAX = 4096  # that one heart may beat for


class Heart:
    """One connection. `pid` is its process: the address of a heart on a unix socket."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.reader = beats.BeatReader()
        self.identities: dict[str, bytes] = {}  # by host: the last one known
        self.refused: set[str] = set()


class Hearts:
    """Each host has one heart, the one that beat first, until that ends or a newer start of it comes."""

    def __init__(self, on_notice: Callable[[Notice], object]) -> None:
        self._on_notice = on_notice
        self._holders: dict[str, tuple[Heart, Beat]] = {}

    def on_beat(self, heart: Heart, payload: bytes) -> None:
        """ValueError when it is no beat."""
        identity = beats.identity(payload)
        beat = heart.reader.read(identity, payload)
        is_new = beat is None
        if beat is None:
            beat = beats.decode(payload)
            if beat.host in heart.identities:
                heart.reader.forget(heart.identities[beat.host])
            elif len(heart.identities) >= HOSTS_MAX:
                raise ValueError(f"it beats for more than {HOSTS_MAX} hosts")
            heart.identities[beat.host] = identity
            heart.reader.know(identity, payload)
        holder = self._holders.get(beat.host)
        if is_new or holder is None or holder[0] is not heart:
            if holder is not None and holder[0] is not heart and not self._takes_over(heart, beat, *holder):
                return
            self._holders[beat.host] = (heart, beat)
            heart.refused.discard(beat.host)
        self._on_notice(beat)

    def _takes_over(self, heart: Heart, beat: Beat, other: Heart, held: Beat) -> bool:
        """A heart that was started again may be here before the end of the old one is told."""
        if beat.boot_id == held.boot_id and beat.generation > held.generation:
            log.info("heart replaced by a newer process", host=beat.host, pid=heart.pid, instead_of=other.pid)
            return True
        if beat.host not in heart.refused:
            heart.refused.add(beat.host)
            log.warning(
                "heart refused",
                host=beat.host,
                because=f"host name {beat.host} is taken by the heart with "
                f"pid {other.pid}; the beats of the one with pid {heart.pid} are dropped: stop one of them or "
                "give its host another name",
            )
        return False

    def drop(self, heart: Heart, reason: str) -> None:
        """Its connection has ended. Nothing is said of hosts for which a newer heart beats."""
        for host in heart.identities:
            holder = self._holders.get(host)
            if holder is not None and holder[0] is heart:
                del self._holders[host]
                self._on_notice(HeartDisconnected(host, reason))
