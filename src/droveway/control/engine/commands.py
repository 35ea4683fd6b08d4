"""One command to one host, and what to believe of its answer."""

from __future__ import annotations

import re
from itertools import chain

import msgspec

from droveway.control.engine.saga import NotYet, TicketNeeded
from droveway.domain.faults import Conflict, Stale, StepFailed, Unreachable
from droveway.domain.resources import is_name, storable
from droveway.domain.service_kinds import COMPUTE
from droveway.ports.bus import Answer, Belongings, Command, ControlBus

WORKING_S = 1.0
BOOT_ID_MAX = 64
GENERATION_MAX = 1 << 30  # what every database takes, with room for those to come
PROGRESS_MAX = 1 << 62
_CHALLENGE = re.compile(r"[0-9a-f]{64}")


async def send(bus: ControlBus, host: str, command: Command, timeout_s: float, service: str = COMPUTE) -> Answer:
    """One command, its refusals as faults: StepFailed, Stale, Unreachable."""
    answer = _believed(host, command, await bus.command(host, command, timeout_s, service))
    if answer.outcome == "ok":
        return answer
    if answer.outcome == "refused":
        raise StepFailed(f"{host}: {answer.sentence}")
    if answer.outcome == "working" and answer.challenge:
        raise TicketNeeded(WORKING_S, f"{host} is at work: {answer.sentence}", answer.challenge)
    if answer.outcome == "working":
        raise NotYet(WORKING_S, f"{host} is at work: {answer.sentence}")
    if answer.outcome == "stale":
        raise Stale(f"{host} has seen a newer command for {command.instance_id}", answer.generation)
    raise Unreachable(f"{host}: {answer.sentence}")


def _believed(host: str, command: Command, answer: Answer) -> Answer:
    """The answer in words that every database takes; one with numbers or names that cannot be is no answer."""
    guest = answer.guest
    if not 0 <= answer.generation <= GENERATION_MAX:
        raise Unreachable(f"{host}: its answer cannot be believed: it tells the generation {answer.generation}")
    if len(answer.boot_id) > BOOT_ID_MAX or not answer.boot_id.isprintable():
        raise Unreachable(f"{host}: its answer cannot be believed: the id of its boot is no id; upgrade its agent")
    if answer.challenge and not _CHALLENGE.fullmatch(answer.challenge):
        raise Unreachable(f"{host}: its answer cannot be believed: its challenge is none; upgrade its agent")
    if guest is not None and guest.instance_id != command.instance_id:
        raise Unreachable(f"{host}: its answer cannot be believed: it is about another guest; upgrade its agent")
    if guest is not None and guest.progress is not None:
        numbers = msgspec.structs.astuple(guest.progress)
        if not all(0 <= number <= PROGRESS_MAX for number in numbers):
            raise Unreachable(f"{host}: its answer cannot be believed: it tells the progress {max(numbers)}")
    if guest is not None and guest.copy_error:
        guest = msgspec.structs.replace(guest, copy_error=storable(guest.copy_error))
    return msgspec.structs.replace(answer, sentence=storable(answer.sentence), guest=guest)


def belongings(host: str, answer: Answer) -> Belongings:
    """All that a host says it has. Raises Conflict: no database can be asked for what it names, or it is no list."""
    try:
        has = msgspec.json.decode(answer.text, type=Belongings)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Conflict(f"{host} answered what cannot be read ({error}): upgrade droveway there") from None
    named = chain((guest.instance_id for guest in has.guests), has.admitted, has.files)
    if not all(map(is_name, named)):
        raise Conflict(f"{host} names a guest by what is no name of any; look at its guests and its instances_path")
    return has
