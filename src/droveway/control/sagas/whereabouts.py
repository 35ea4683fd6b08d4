"""Where a guest is that moves: both hosts are asked, and the table in domain/migration.py decides."""

from __future__ import annotations

import asyncio

import msgspec

from droveway.control.engine.saga import Context, NotYet, Undecided
from droveway.control.liveness.admission import DeclaredGone
from droveway.domain.faults import Unreachable
from droveway.domain.migration import Verdict, verdict
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import (
    CopyProgress,
    Guest,
    GuestJob,
    GuestSpec,
    GuestState,
    LocalFiles,
    MigrationEndpoint,
    PostCopy,
)
from droveway.domain.move_prediction import GuestLoad
from droveway.ports.bus import Inspect
from droveway.store.compute import instances
from droveway.store.volume.attachments import HeldVolume

POLL_S = 0.5


class MoveNotes(msgspec.Struct):
    """What the saga has learnt so far."""

    source: str = ""
    destination: str = ""
    spec: GuestSpec | None = None
    source_cpu_xml: str = ""
    probe: str = ""
    asks_pool: bool = True  # the test object in the pool of its root disk may have been written
    endpoint: MigrationEndpoint | None = None
    network_revision: int = 0  # that has its ports bound to both hosts; 0: they are not
    boot_id: str = ""  # of the destination, when the guest was seen to run there
    source_boot_id: str = ""  # before the copy
    destination_boot_id: str = ""  # when it admitted the guest
    may_copy: bool = True  # the source may have been told to begin; a saga of an older release does not say
    ended: bool = False  # it was found to run on neither host: what is paused at the source is a rest
    resumed: bool = False  # at the destination, where it was found paused; once
    power_state: int = instances.POWER_RUNNING  # as it was found at the destination
    left: str = ""  # the host that was declared gone and is the only one that may have it: its place from then on
    doomed: str = ""  # deleted while its place is unknown: the host of the deferred cleanup
    volumes: tuple[HeldVolume, ...] = ()
    spec_there: GuestSpec | None = None  # with its volumes as the destination opens them; None: it is the same
    apart: bool = False  # the two share no instance store, and the guest has nothing there that would be missed
    copies_files: bool = False  # the two do not see one store: its disks go along
    files: LocalFiles = LocalFiles()  # of which these are copied; its config drive is in no notes
    files_deleted: bool = False  # by the host that has not got the guest
    began_us: int = 0  # when the saga began to work on it
    load: GuestLoad | None = None  # how much there was to send when its source was asked
    target: CopyTarget = CopyTarget()
    last_progress: CopyProgress | None = None  # as its source said last; once it has arrived, its totals
    lost: str = ""  # why, of a guest that was lost in post-copy
    died: bool = False  # and one of the two had booted since: the guest ended with its host, not by itself

    @property
    def there(self) -> GuestSpec:
        """What the guest is at the destination."""
        assert self.spec is not None, "it was found"
        return self.spec_there or self.spec


class GuestOnBothHosts(msgspec.Struct, frozen=True):
    """What both hosts say at one moment."""

    verdict: Verdict
    source: Guest | None
    destination: Guest | None
    gone: tuple[bool, bool] = (False, False)

    @property
    def post_copy(self) -> PostCopy:
        """Whether its memory lies on both, as either says."""
        halves = [guest.post_copy for guest in (self.source, self.destination) if guest is not None]
        return max(halves, key=list(PostCopy).index, default=PostCopy.NONE)

    @property
    def power_state(self) -> int:
        """At the destination."""
        if self.destination is None:
            return instances.POWER_NONE
        if self.destination.state is GuestState.SHUTOFF:
            return instances.POWER_SHUTDOWN
        is_paused = self.destination.state is GuestState.PAUSED
        return instances.POWER_PAUSED if is_paused else instances.POWER_RUNNING

    def ended_there(self, move: MoveNotes) -> bool:
        """It has run at the destination and ended there. Where its disks went along, the only ones that are of now are
        there: then that is its place."""
        is_left_there = self.destination is not None and self.destination.state is GuestState.SHUTOFF
        return move.copies_files and self.verdict is Verdict.ENDED and is_left_there

    def must_be_decided(self, move: MoveNotes) -> None:
        if self.verdict is Verdict.COPYING:
            raise NotYet(POLL_S, f"the copy from {move.source} to {move.destination} goes on, or its switch does")
        if self.verdict is Verdict.WAIT:
            asked = ((self.source, self.gone[0], move.source), (self.destination, self.gone[1], move.destination))
            silent = " and ".join(host for guest, is_gone, host in asked if guest is None and not is_gone)
            raise Unreachable(f"{silent} must answer before anybody may say where the guest is")

    def undecided(self, move: MoveNotes) -> Undecided:
        """It is not known: a host that was declared gone may be running it."""
        asked = ((self.gone[0], move.source), (self.gone[1], move.destination))
        gone = [host for is_gone, host in asked if is_gone]
        return Undecided(
            f"{' and '.join(gone)} was declared gone and may run the guest, which is started nowhere else "
            f"without proof; 'droveway host readmit {gone[0]}', or delete the server"
        )


async def look(ctx: Context) -> GuestOnBothHosts:
    move: MoveNotes = ctx.notes
    source, source_boot_id, source_gone = await _ask(ctx, move.source)
    is_whole = source is not None and source.post_copy is not PostCopy.FAILED
    if source is not None and source.job is GuestJob.OUTGOING and is_whole:
        move.last_progress = source.progress or move.last_progress
        _is_settled(ctx, source, None)
        return GuestOnBothHosts(Verdict.COPYING, source, None)
    destination, boot_id, destination_gone = await _ask(ctx, move.destination)
    if (
        source is not None
        and source.state is GuestState.RUNNING
        and destination is not None
        and destination.state is GuestState.RUNNING
    ):
        # Asked one after the other, the two answers may lie on either side of a switch: ask the first again.
        source, source_boot_id, source_gone = await _ask(ctx, move.source)
    move.boot_id = boot_id
    rebooted, gone = boot_id != move.destination_boot_id, (source_gone, destination_gone)
    found = verdict(
        source, destination, destination_rebooted=rebooted, gone=gone, settled=_is_settled(ctx, source, destination)
    )
    if found is Verdict.SWITCHED and destination is not None:
        move.last_progress = destination.progress or move.last_progress
    if found is Verdict.ENDED:
        move.ended = True
        move.died = rebooted or source_boot_id != move.source_boot_id
    return GuestOnBothHosts(found, source, destination, gone)


def _is_settled(ctx: Context, source: Guest | None, destination: Guest | None) -> bool:
    """Whether both have said the same for long, as far as this process has asked them."""
    observed = tuple(None if one is None else (one.state, one.job, one.kept) for one in (source, destination))
    now_s = asyncio.get_running_loop().time()
    if ctx.same_since_s[0] != observed:
        ctx.same_since_s = (observed, now_s)
    return now_s - ctx.same_since_s[1] >= ctx.settings.settle_s


async def _ask(ctx: Context, host: str) -> tuple[Guest | None, str, bool]:
    """The guest as that host sees it, and the host's boot; None when it does not answer, and whether it was declared
    gone."""
    try:
        answer = await ctx.ask(host, Inspect())
    except Unreachable as fault:
        return None, "", isinstance(fault, DeclaredGone)
    return answer.guest, answer.boot_id, False
