"""What a host answers to the dry run of a move (ports/move_verbs.py), and how a check that fails refuses a real one."""

from __future__ import annotations

from collections.abc import Iterable

from droveway.domain.model import GuestSpec
from droveway.domain.move_checks import CheckAnswer, first_failed
from droveway.ports.hypervisor import Hypervisor, HypervisorDown, HypervisorRefused
from droveway.ports.move_verbs import (
    ArrivalsTried,
    ArrivalTried,
    BaselineCpu,
    CompareCpu,
    CpuBaselined,
    CpuCompared,
    DeparturesTried,
    DepartureTried,
    LookForProbes,
    ProbesRemoved,
    ProbesSeen,
    RemoveProbes,
    TryArrivals,
    TryDepartures,
)

NO_SUCH_CPU = "the question names a CPU that it does not describe"


def must_pass(answers: Iterable[CheckAnswer]) -> None:
    """Raises HypervisorRefused with the reason of the first check that fails."""
    failed = first_failed(answers)
    if failed is not None:
        raise HypervisorRefused(failed.reason)


async def answer(
    h: Hypervisor, verb: TryArrivals | TryDepartures | LookForProbes | RemoveProbes | BaselineCpu | CompareCpu
) -> ArrivalsTried | DeparturesTried | ProbesSeen | ProbesRemoved | CpuBaselined | CpuCompared:
    match verb:
        case TryArrivals():
            return await _arrivals(h, verb)
        case TryDepartures():
            return await _departures(h, verb)
        case LookForProbes(names):
            return ProbesSeen(tuple([name for name in names if await h.sees_probe(name)]))
        case RemoveProbes(names):
            for name in names:
                await h.remove_probe(name)
            return ProbesRemoved()
        case BaselineCpu(cpus):
            return CpuBaselined(await h.cpu_baseline(cpus))
        case CompareCpu(cpu_xml):
            return CpuCompared(await h.compare_cpu(cpu_xml))


async def _arrivals(h: Hypervisor, verb: TryArrivals) -> ArrivalsTried:
    tried = []
    for asked in verb.guests:
        if asked.source_cpu >= len(verb.cpus):
            raise HypervisorRefused(NO_SUCH_CPU)
        tried.append(await _arrival(h, asked.spec, verb.cpus[asked.source_cpu]))
    free_bytes = await h.store_room_bytes(over_commits=True)
    least_bytes = await h.store_room_bytes(over_commits=False)
    trouble = ""
    try:
        await h.write_probe(verb.probe)
    except HypervisorDown as down:  # what it does not share is said by others, and its store is a check by itself
        trouble = down.reason
    except HypervisorRefused as refused:
        trouble = refused.reason
    return ArrivalsTried(tuple(tried), free_bytes, least_bytes, trouble)


async def _arrival(h: Hypervisor, spec: GuestSpec, source_cpu_xml: str) -> ArrivalTried:
    return ArrivalTried(spec.instance_id, await h.check_incoming(spec, source_cpu_xml))


async def _departures(h: Hypervisor, verb: TryDepartures) -> DeparturesTried:
    loads = await h.loads(verb.instance_ids, verb.measure_s)
    tried = []
    for instance_id in verb.instance_ids:
        disks = (await h.local_files(instance_id)).disks
        tried.append(
            DepartureTried(
                instance_id,
                await h.check_outgoing(instance_id),
                loads.get(instance_id),
                sum(disk.allocated_bytes for disk in disks),
                sum(disk.size_bytes for disk in disks),
            )
        )
    return DeparturesTried(tuple(tried))
