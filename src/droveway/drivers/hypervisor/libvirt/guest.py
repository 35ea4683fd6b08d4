"""What libvirt says of one guest, and the acts on one, as blocking functions of a connection.

Each looks at the guest as it is now and then acts, so that doing it again after a broken connection does no harm.
What libvirt 9.0 leaves behind when a copy goes wrong, found by trying (pre-copy, shared disk):

| when                              | source                                | destination                          |
|-----------------------------------|---------------------------------------|--------------------------------------|
| abort, or the destination's half  | runs on                               | gone                                 |
| is destroyed                      |                                       |                                      |
| either libvirtd killed while it   | runs on, no job once it is back       | gone (a killed destination shows it  |
| copies                            |                                       | paused for a moment before)          |
| source's killed at the switch     | paused for a moment, then runs on     | gone                                 |
| destination's killed at the switch| runs on                               | paused for a moment, then gone       |
| either killed once the            | a paused husk, no job, for good: it   | runs                                 |
| destination runs                  | cannot be resumed (the disk is locked)|                                      |
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import libvirt
import msgspec

from droveway.domain.model import CopyChange, CopyProgress, Guest, GuestJob, GuestState, PostCopy
from droveway.drivers.hypervisor.libvirt.domain_xml import (
    NAME_PREFIX,
    NAMESPACE,
    ForeignDomain,
    domain_name,
    is_instance_id,
    parse_mark,
)
from droveway.drivers.hypervisor.promises import check_not_moving

AGENT_ANSWERS_WITHIN_S = 5
_GONE = (libvirt.VIR_ERR_NO_DOMAIN,)
NOT_RUNNING = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_NOSTATE: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.RUNNING,  # powering off, but its process is still there
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.SHUTOFF,
}
_POST_COPY = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY): PostCopy.ACTIVE,
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED): PostCopy.FAILED,
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY): PostCopy.ACTIVE,
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED): PostCopy.FAILED,
}
_OFF = (GuestState.SHUTOFF, GuestState.ABSENT)  # a domain that is `absent` has a definition, or is vanishing
# What is left of a guest of ours that libvirt keeps beside its definition.
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    # Beside the disk, on a store that hosts share: the guest may run elsewhere. It is deleted with the guest's files.
    | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
)


def of_name(name: str) -> str | None:
    """The instance whose domain would have that name."""
    instance_id = name.removeprefix(NAME_PREFIX)
    return instance_id if instance_id != name and is_instance_id(instance_id) else None


def find(connection: Any, instance_id: str) -> Any | None:
    """The guest's domain, if there is one and it is ours."""
    try:
        domain = connection.lookupByUUIDString(instance_id)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _GONE:
            return None
        raise
    return domain if is_ours(domain) else None


def is_ours(domain: Any) -> bool:
    if domain.name() != domain_name(domain.UUIDString()):
        return False
    try:
        marked, _ = parse_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except ForeignDomain:
        return False
    except libvirt.libvirtError as error:
        if error.get_error_code() in (*_GONE, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            return False
        raise
    return marked == str(domain.UUIDString())


def look(connection: Any, instance_id: str) -> Guest:
    domain = find(connection, instance_id)
    if domain is None:
        return Guest(instance_id, GuestState.ABSENT)
    guest = describe(domain)
    if guest.state is GuestState.RUNNING and guest.job is GuestJob.NONE:
        return msgspec.structs.replace(guest, progress=_arrived(domain))
    return guest


def _arrived(domain: Any) -> CopyProgress | None:
    """The totals of the copy by which it came here, if it did; libvirt keeps them until its next job."""
    with contextlib.suppress(libvirt.libvirtError):
        stats = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
        if stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
            return _progress(stats)
    return None


def look_all(connection: Any) -> dict[str, Guest]:
    found = (describe(domain) for domain in connection.listAllDomains() if of_name(domain.name()) and is_ours(domain))
    return {guest.instance_id: guest for guest in found if guest.state is not GuestState.ABSENT}


def describe(domain: Any) -> Guest:
    """The job is read before the state: a copy that ends in between then shows its end, not a running guest without
    the copy that has just taken it away."""
    instance_id = domain.UUIDString()
    try:
        job, progress = _job(domain)
        state, reason = domain.state()
        found = _STATES.get(state, GuestState.RUNNING)
        if found is GuestState.SHUTOFF and (reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED or not domain.isPersistent()):
            found = GuestState.ABSENT  # gone to another host and about to vanish here, or not yet begun
        is_kept = found is GuestState.PAUSED and bool(domain.isPersistent())
        is_saved = found is GuestState.SHUTOFF and bool(domain.hasManagedSaveImage())
    except libvirt.libvirtError as error:
        if error.get_error_code() in _GONE:
            return Guest(instance_id, GuestState.ABSENT)
        raise
    if found in _OFF:
        job, progress = GuestJob.NONE, None
    is_crashed = state == libvirt.VIR_DOMAIN_CRASHED or (
        found is GuestState.SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED
    )
    is_suspended = (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
    return Guest(
        instance_id,
        found,
        job,
        progress,
        crashed=is_crashed,
        kept=is_kept,
        suspended=is_suspended,
        saved=is_saved,
        post_copy=_POST_COPY.get((state, reason), PostCopy.NONE),
    )


def _job(domain: Any) -> tuple[GuestJob, CopyProgress | None]:
    try:
        stats: dict[str, Any] = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return GuestJob.INCOMING, None  # "migration statistics are available only on the source host"
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            return GuestJob.NONE, None  # it does not run
        raise
    operation = stats.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN)
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return GuestJob.NONE, None
    if operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
        return GuestJob.INCOMING, None
    if operation != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
        return GuestJob.NONE, None
    return GuestJob.OUTGOING, _progress(stats)


def _progress(stats: dict[str, Any]) -> CopyProgress:
    return CopyProgress(
        memory_total_bytes=stats.get("memory_total", 0),
        memory_processed_bytes=stats.get("memory_processed", 0),
        memory_remaining_bytes=stats.get("memory_remaining", 0),
        iteration=stats.get("memory_iteration", 0),
        elapsed_ms=stats.get("time_elapsed", 0),
        downtime_ms=stats.get("downtime", 0),
        disk_total_bytes=stats.get("disk_total", 0),
        disk_processed_bytes=stats.get("disk_processed", 0),
        disk_remaining_bytes=stats.get("disk_remaining", 0),
        rate_bytes_s=stats.get("memory_bps", 0) or stats.get("disk_bps", 0),
        dirty_bytes_s=stats.get("memory_dirty_rate", 0) * stats.get("memory_page_size", 4096),
        throttle_percent=stats.get("auto_converge_throttle", 0),
    )


# -- acts -----------------------------------------------------------------------------------------------------------
def start(connection: Any, instance_id: str, xml: str) -> None:
    domain = find(connection, instance_id)
    if domain is not None:
        guest = describe(domain)
        if guest.state is GuestState.RUNNING:
            return
        if guest.state is GuestState.PAUSED:
            check_not_moving(instance_id, guest.job)
            # The store's image lock refuses this when the guest runs on another host.
            resume(domain)
            return
    domain = connection.defineXML(xml)
    try:
        domain.create()
    except libvirt.libvirtError:
        if not domain.isActive():
            raise


def resume(domain: Any) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED:
        domain.pMWakeup()
        return
    try:
        domain.resume()
    except libvirt.libvirtError:
        if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:  # libvirt itself may have been resuming it
            raise


def press_power_button(connection: Any, instance_id: str) -> bool:
    """Ask it to power off, by its agent if that is there, or else by the button; False when nothing runs that could
    hear it."""
    domain = find(connection, instance_id)
    if domain is None or domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        return False
    if not _asked_by_agent(domain):
        with ignoring(*NOT_RUNNING):
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    return True


def _asked_by_agent(domain: Any) -> bool:
    """An agent that does not answer in time is none."""
    channels = ET.fromstring(domain.XMLDesc()).iterfind("devices/channel/target[@name='org.qemu.guest_agent.0']")
    if not any(channel.get("state") == "connected" for channel in channels):
        return False
    try:
        domain.agentSetResponseTimeout(AGENT_ANSWERS_WITHIN_S)
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
    except libvirt.libvirtError:
        return False
    return True


def is_active(connection: Any, instance_id: str) -> bool:
    return look(connection, instance_id).state in (GuestState.RUNNING, GuestState.PAUSED)


def destroy(connection: Any, instance_id: str) -> None:
    """And forget what was saved of its memory."""
    domain = find(connection, instance_id)
    if domain is not None:
        with ignoring(*NOT_RUNNING):
            domain.destroy()
        with ignoring(*NOT_RUNNING):
            if domain.isPersistent() and domain.hasManagedSaveImage():
                domain.managedSaveRemove()


def remove(connection: Any, instance_id: str) -> None:
    """End it and forget it, however much of it is left."""
    domain = find(connection, instance_id)
    if domain is None:
        return
    with ignoring(*NOT_RUNNING):
        domain.destroy()
    _undefine(domain)


def _undefine(domain: Any) -> None:
    with ignoring(*NOT_RUNNING):  # a transient domain has no definition to forget
        domain.undefineFlags(_UNDEFINE)


def forget(connection: Any, instance_id: str) -> None:
    """Drop a definition that does not run."""
    domain = find(connection, instance_id)
    if domain is not None and describe(domain).state in _OFF:
        _undefine(domain)


def reap(connection: Any, instance_id: str) -> bool:
    """End a guest that is still arriving. Only that: what runs, or was paused by anything but an arrival, stays.

    Its state is read again right before; between that and the act lie some hundred microseconds, in which a copy's
    last step could still let it run. Hence copies are aborted at their source before anybody dismisses them.
    """
    domain = find(connection, instance_id)
    if domain is None or not (_is_arriving(domain) and _is_arriving(domain)):
        return False
    with ignoring(*NOT_RUNNING):
        domain.destroy()
    return True


def _is_arriving(domain: Any) -> bool:
    """Paused before its first instruction here. Post-copy guests, even broken ones, hold memory that exists nowhere
    else: they carry other reasons and are not meant."""
    try:
        job, _ = _job(domain)
        state, reason = domain.state()
    except libvirt.libvirtError as error:
        if error.get_error_code() in _GONE:
            return False
        raise
    waits = reason in (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
    return job is GuestJob.INCOMING and state == libvirt.VIR_DOMAIN_PAUSED and waits


def dismiss(connection: Any, instance_id: str) -> bool:
    """End a half-arrived guest and forget a definition that does not run. False: ask again in a moment, because a
    restarted libvirtd shows the half that it is about to end paused and without a job, and one that did arrive too."""
    reap(connection, instance_id)
    domain = find(connection, instance_id)
    if domain is None:
        return True
    guest = describe(domain)
    if guest.state in _OFF:
        _undefine(domain)
        return True
    # What runs has arrived. What is paused, defined and without a job was never an arrival.
    return guest.state is GuestState.RUNNING or (guest.job is GuestJob.NONE and bool(domain.isPersistent()))


def release(connection: Any, instance_id: str) -> bool:
    """Forget what is left of a guest that has gone elsewhere, never one that runs or arrives. False: it has been paused
    for the switch, and libvirt is still at work on it; ask again in a moment."""
    domain = find(connection, instance_id)
    if domain is None:
        return True
    guest = describe(domain)
    if guest.state is GuestState.PAUSED:
        if guest.job is not GuestJob.NONE and guest.post_copy is not PostCopy.FAILED:
            return guest.job is GuestJob.INCOMING
        if not destroy_if_paused(connection, instance_id):
            return True
    elif guest.state not in _OFF:
        return True
    _undefine(domain)
    return True


def destroy_if_paused(connection: Any, instance_id: str) -> bool:
    """Look once more, then end it. True when nothing of it runs any more."""
    domain = find(connection, instance_id)
    if domain is None:
        return True
    guest = describe(domain)
    is_left = guest.post_copy is PostCopy.FAILED  # libvirt ends that job only with the guest
    if guest.state is GuestState.RUNNING or (guest.job is not GuestJob.NONE and not is_left):
        return False
    with ignoring(*NOT_RUNNING):
        domain.destroy()
    return True


def abort_job(connection: Any, instance_id: str) -> bool:
    """Ask for the end of an outgoing copy; False when none is seen, or its guest is at the destination already."""
    domain = find(connection, instance_id)
    if domain is None or not _copies_before_the_switch(describe(domain)):
        return False
    with ignoring(*NOT_RUNNING):
        domain.abortJob()
    return True


def _copies_before_the_switch(guest: Guest) -> bool:
    return guest.job is GuestJob.OUTGOING and guest.post_copy is PostCopy.NONE


def adjust_job(connection: Any, instance_id: str, change: CopyChange) -> None:
    """Nothing to do when no copy is seen that could still be changed."""
    domain = find(connection, instance_id)
    if domain is None or not _copies_before_the_switch(guest := describe(domain)):
        return
    if change.downtime_max_ms:
        domain.migrateSetMaxDowntime(change.downtime_max_ms)
    if change.post_copy:
        domain.migrateStartPostCopy()
    if change.pause and guest.state is GuestState.RUNNING:
        domain.suspend()


@contextlib.contextmanager
def ignoring(*codes: int) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise
