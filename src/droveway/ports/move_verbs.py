"""What the dry run of a move asks of hosts: about many guests at once, and nothing stays changed.

The one thing that is written is the test file that tells whether two hosts share their store. Its name is its own; it
is removed at the end, and one that was left because a message was late or its asker ended is swept as every other.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from droveway.domain.model import GuestSpec
from droveway.domain.move_checks import CheckAnswer
from droveway.domain.move_prediction import GuestLoad
from droveway.domain.wire import FEW, Count, Description, Number, Reason, ShortText
from droveway.ports.verb import VerbWithReply


class ArrivalAsked(msgspec.Struct, frozen=True):
    """`source_cpu`: which of the CPUs of the question its host has."""

    spec: GuestSpec
    source_cpu: Count


class ArrivalTried(msgspec.Struct, frozen=True):
    instance_id: ShortText
    checks: Annotated[tuple[CheckAnswer, ...], FEW] = ()


class ArrivalsTried(msgspec.Struct, frozen=True, tag="arrivals_tried"):
    """`free_bytes`, `least_bytes`: what is free for disks that arrive, now, and when every disk here had grown to its
    full size. `store_trouble`: why the test file could not be written; empty: it is there."""

    guests: Annotated[tuple[ArrivalTried, ...], FEW] = ()
    free_bytes: Number = 0
    least_bytes: Number = 0
    store_trouble: Reason = ""


class DepartureTried(msgspec.Struct, frozen=True):
    """`disk_bytes`, `full_bytes`: of its disks on the instance store, what they take and what they may grow to.
    `load` None: it does not run there."""

    instance_id: ShortText
    checks: Annotated[tuple[CheckAnswer, ...], FEW] = ()
    load: GuestLoad | None = None
    disk_bytes: Count = 0
    full_bytes: Count = 0


class DeparturesTried(msgspec.Struct, frozen=True, tag="departures_tried"):
    guests: Annotated[tuple[DepartureTried, ...], FEW] = ()


class ProbesSeen(msgspec.Struct, frozen=True, tag="probes_seen"):
    """Which of the test files that were named are visible here."""

    names: Annotated[tuple[ShortText, ...], FEW] = ()


class ProbesRemoved(msgspec.Struct, frozen=True, tag="probes_removed"):
    """None of those that were named is there."""


class TryArrivals(VerbWithReply[ArrivalsTried], frozen=True, tag="try_arrivals"):
    """Could these guests arrive here? And write the test file `probe`. `cpus`: of the hosts they would come from, as
    libvirt describes them. About no guest by itself."""

    guests: Annotated[tuple[ArrivalAsked, ...], FEW]
    cpus: Annotated[tuple[Description, ...], FEW]
    probe: ShortText


class TryDepartures(VerbWithReply[DeparturesTried], frozen=True, tag="try_departures"):
    """Could these guests leave, and how much would there be to send? Measured for `measure_s`. About no guest by
    itself."""

    instance_ids: Annotated[tuple[ShortText, ...], FEW]
    measure_s: Count = 0


class LookForProbes(VerbWithReply[ProbesSeen], frozen=True, tag="look_for_probes"):
    """Read-only. About no guest."""

    names: Annotated[tuple[ShortText, ...], FEW]


class RemoveProbes(VerbWithReply[ProbesRemoved], frozen=True, tag="remove_probes"):
    """Those files that a TryArrivals has written. About no guest."""

    names: Annotated[tuple[ShortText, ...], FEW]


class CpuBaselined(msgspec.Struct, frozen=True, tag="cpu_baselined"):
    """A CPU that hosts of each of those can run, as libvirt describes it; empty where guests are emulated, and touch no
    host's."""

    cpu_xml: Description = ""


class CpuCompared(msgspec.Struct, frozen=True, tag="cpu_compared"):
    check: CheckAnswer


class BaselineCpu(VerbWithReply[CpuBaselined], frozen=True, tag="baseline_cpu"):
    """Read-only: what do the CPUs of these hosts have in common? Refused where it is nothing. About no guest."""

    cpus: Annotated[tuple[Description, ...], FEW]


class CompareCpu(VerbWithReply[CpuCompared], frozen=True, tag="compare_cpu"):
    """Read-only: could a guest with that CPU run here? About no guest."""

    cpu_xml: Description


BEFORE_MOVES = (TryArrivals, TryDepartures, LookForProbes, RemoveProbes, BaselineCpu, CompareCpu)
