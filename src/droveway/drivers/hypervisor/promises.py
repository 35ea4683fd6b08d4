"""Whether a host can hold a guest to what it was promised: NUMA cells, CPUs of its own, a kind of machine; and what a
guest that moves, or that holds on to a device, refuses. The same for every driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from droveway.domain.model import GuestJob, GuestSpec, GuestState, Nic
from droveway.domain.move_checks import Check, CheckAnswer, answer, of_room
from droveway.domain.placement import NumaCell
from droveway.ports.hypervisor import HypervisorRefused


def check_cells(spec: GuestSpec, host_cells: Sequence[NumaCell]) -> None:
    """Refused when this host has not the cells and CPUs that the guest is held to."""
    cells = {cell.id: cell for cell in host_cells}
    for held in spec.cells:
        cell = cells.get(held.cell)
        if cell is None:
            raise HypervisorRefused(
                f"Guest {spec.instance_id} is held to NUMA cell {held.cell}; this host has "
                f"{', '.join(map(str, cells)) or 'none'}."
            )
        missing = sorted(set(held.cpus) - set(cell.cpus))
        if missing:
            raise HypervisorRefused(
                f"Guest {spec.instance_id} is pinned to CPU {missing[0]}, which is not in NUMA "
                f"cell {held.cell} of this host."
            )
        if held.cpus and len(held.cpus) != held.vcpus:
            raise HypervisorRefused(
                f"Guest {spec.instance_id} has {held.vcpus} vcpus in cell {held.cell} and "
                f"{len(held.cpus)} CPUs for them."
            )
    if spec.cells and (vcpus := sum(held.vcpus for held in spec.cells)) != spec.vcpus:
        raise HypervisorRefused(f"Guest {spec.instance_id} has {spec.vcpus} vcpus; its cells hold {vcpus}.")


def check_machine(spec: GuestSpec, machine_types: Sequence[str]) -> None:
    """Refused when the guest is to be a machine that this host's emulator does not know."""
    if spec.machine_type and machine_types and spec.machine_type not in machine_types:
        known = ", ".join(machine_types[:5])
        raise HypervisorRefused(
            f"Guest {spec.instance_id} is to be a machine {spec.machine_type[:64]!r}; this host "
            f"knows {known} and {max(0, len(machine_types) - 5)} more."
        )


def check_not_moving(instance_id: str, job: GuestJob) -> None:
    """Refused while it goes to another host, or comes from one."""
    if job is not GuestJob.NONE:
        raise HypervisorRefused(f"Guest {instance_id} is in the middle of a move ({job}).")


def check_off(instance_id: str, state: GuestState) -> None:
    """Refused while it runs or is paused here: its disk is in use."""
    if state in (GuestState.RUNNING, GuestState.PAUSED):
        raise HypervisorRefused(f"Guest {instance_id} is {state} on this host: its disk is left alone; stop it first.")


def check_alive(instance_id: str, state: GuestState) -> None:
    """Refused when it does not run, and is not paused either."""
    if state not in (GuestState.RUNNING, GuestState.PAUSED):
        raise HypervisorRefused(f"Guest {instance_id} does not run on this host: it is {state}.")


def not_let_go(instance_id: str, nic: Nic, within_s: float) -> str:
    return (
        f"Guest {instance_id} has not let go of the interface {nic.mac} (port {nic.port_id}) within {within_s:.0f} s: "
        "its operating system did not answer. Try again when it has booted, or stop the server and detach it then."
    )


def volume_not_let_go(instance_id: str, volume_id: str, within_s: float) -> HypervisorRefused:
    return HypervisorRefused(
        f"Guest {instance_id} has not let go of volume {volume_id} within {within_s:.0f} s: its operating system did "
        "not answer. Try again when it has booted and has the volume unmounted, or stop the server and detach it then."
    )


def no_such_volume(instance_id: str, volume_id: str) -> HypervisorRefused:
    return HypervisorRefused(f"Guest {instance_id} has no volume {volume_id}.")


def check_each(*checks: tuple[Check, Callable[[], None]]) -> tuple[CheckAnswer, ...]:
    """Each with its answer: what it raises is one."""

    def asked(name: Check, check: Callable[[], None]) -> CheckAnswer:
        try:
            check()
        except HypervisorRefused as refused:
            return answer(name, False, refused.reason)
        return answer(name, True, "")

    return tuple(asked(name, check) for name, check in checks)


async def check_later(name: Check, check: Awaitable[None]) -> CheckAnswer:
    """The same of one that is waited for."""
    try:
        await check
    except HypervisorRefused as refused:
        return answer(name, False, refused.reason)
    return answer(name, True, "")


def check_not_there(instance_id: str, state: GuestState) -> None:
    """Refused when a guest of that id is where another one is to arrive."""
    if state in (GuestState.RUNNING, GuestState.PAUSED):
        raise HypervisorRefused(f"Guest {instance_id} is on this host already ({state}).")


def check_room(instance_id: str, free_bytes: int, needed_bytes: int) -> None:
    """Refused when the disks of a guest find no room here."""
    found = of_room(instance_id, free_bytes, needed_bytes)
    if not found.passed:
        raise HypervisorRefused(found.reason)


def check_movable(spec: GuestSpec) -> None:
    """A running guest takes its memory and its CPUs' numbers along: on another host these are other cells."""
    if spec.cells:
        raise HypervisorRefused(
            f"Guest {spec.instance_id} is held to NUMA cells of its host and cannot be moved while "
            "it runs: power it off and start it there, or take a flavor without hw:numa_nodes and "
            "hw:cpu_policy."
        )
