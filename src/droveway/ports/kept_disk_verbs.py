"""What is done with the root disk of a guest that is resized, or moves while it is off; and which of them lie in a
pool."""

from __future__ import annotations

from droveway.domain.wire import Count, ShortText
from droveway.ports.replies import GuestStatus, RootDisks
from droveway.ports.verb import VerbWithReply


class KeepDisk(VerbWithReply[GuestStatus], frozen=True, tag="keep_disk"):
    """Copy its root disk beside it, as it is while it is off. `mark`: the saga that may want it back."""

    mark: ShortText


class GrowRoot(VerbWithReply[GuestStatus], frozen=True, tag="grow_root"):
    """Its root disk is at least so large from now on, while it is off."""

    size_gb: Count


class RestoreDisk(VerbWithReply[GuestStatus], frozen=True, tag="restore_disk"):
    """The copy of that mark is its root disk again, while it is off; where there is none, that has been done."""

    mark: ShortText


class ForgetKept(VerbWithReply[GuestStatus], frozen=True, tag="forget_kept"):
    """Delete the copy of that mark."""

    mark: ShortText


class ListRootDisks(VerbWithReply[RootDisks], frozen=True, tag="list_root_disks"):
    """Read-only: which instances have a root disk in the pool that this host works with. About no guest."""
