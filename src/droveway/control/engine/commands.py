"""One command to one host, and the checks of its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import TypeVar, cast

import msgspec

from droveway.control.engine.saga import NotYet, TicketNeeded
from droveway.domain.faults import Conflict, Stale, StepFailed, Unreachable
from droveway.domain.model import Guest, Subject
from droveway.domain.resources import is_name, storable
from droveway.domain.service_kinds import COMPUTE
from droveway.ports.bus import Command, ControlBus, Verb, why_no_reply
from droveway.ports.replies import (
    GuestAdmitted,
    GuestFrozen,
    GuestStatus,
    HostInventory,
    ImageTicketNeeded,
    PingResult,
    Refused,
    RootDisks,
    SourceChecked,
    StaleFence,
    Unavailable,
    Working,
)
from droveway.ports.verb import VerbWithReply

R = TypeVar("R")
WORKING_S = 1.0
BOOT_ID_MAX = 64
GENERATION_MAX = 1 << 30  # what every database takes, with room for those to come
PROGRESS_MAX = 1 << 62
_CHALLENGE = re.compile(r"[0-9a-f]{64}")


async def send(
    bus: ControlBus,
    host: str,
    subject: Subject,
    generation: int,
    verb: VerbWithReply[R],
    timeout_s: float,
    service: str = COMPUTE,
) -> R:
    """One command: the reply of its type, with text that every database takes; failures as faults: StepFailed, NotYet,
    Stale, Unreachable. A reply with numbers or names that cannot be is none."""
    command = Command(subject, generation, cast(Verb, verb))
    answer = await bus.command(host, command, timeout_s, service)
    if why_not := why_no_reply(command.verb, answer):
        raise Unreachable(f"{host}: its answer is invalid: {why_not}")
    match answer:
        case Refused(reason):
            raise StepFailed(f"{host}: {storable(reason)}")
        case Working(reason):
            raise NotYet(WORKING_S, f"{host} is at work: {storable(reason)}")
        case ImageTicketNeeded(reason, challenge):
            if not _CHALLENGE.fullmatch(challenge):
                raise Unreachable(f"{host}: its answer is invalid: it has no challenge; upgrade its agent")
            raise TicketNeeded(WORKING_S, f"{host} is at work: {storable(reason)}", challenge)
        case Unavailable(reason):
            raise Unreachable(f"{host}: {storable(reason)}")
        case StaleFence(_, seen):
            if not 0 <= seen <= GENERATION_MAX:
                raise Unreachable(f"{host}: its answer is invalid: it names the generation {seen}")
            raise Stale(f"{host} has seen a newer command for {subject}", seen)
        case GuestStatus() | GuestAdmitted() | GuestFrozen() | SourceChecked():
            _must_be_boot(host, answer.boot_id)
            answer = msgspec.structs.replace(answer, guest=_checked_guest(host, subject, answer.guest))
        case HostInventory():
            _must_be_boot(host, answer.boot_id)
            _must_name_guests(
                host, chain((guest.instance_id for guest in answer.guests), answer.admitted, answer.files)
            )
        case RootDisks():
            _must_name_guests(host, answer.instance_ids)
        case PingResult():
            _must_be_boot(host, answer.boot_id)
    return cast(R, answer)


def _must_be_boot(host: str, boot_id: str) -> None:
    if len(boot_id) > BOOT_ID_MAX or not boot_id.isprintable():
        raise Unreachable(f"{host}: its answer is invalid: the id of its boot is no id; upgrade its agent")


def _checked_guest(host: str, subject: Subject, guest: Guest) -> Guest:
    if guest.instance_id != subject.id:
        raise Unreachable(f"{host}: its answer is invalid: it is about another guest; upgrade its agent")
    if guest.progress is not None:
        numbers = msgspec.structs.astuple(guest.progress)
        if not all(0 <= number <= PROGRESS_MAX for number in numbers):
            raise Unreachable(f"{host}: its answer is invalid: it names the progress {max(numbers)}")
    return msgspec.structs.replace(guest, copy_error=storable(guest.copy_error)) if guest.copy_error else guest


def _must_name_guests(host: str, named: Iterable[str]) -> None:
    """Raises Conflict: no database can be asked for what it names."""
    if not all(map(is_name, named)):
        raise Conflict(f"{host} names a guest by what is no name of any; look at its guests and its instances_path")
