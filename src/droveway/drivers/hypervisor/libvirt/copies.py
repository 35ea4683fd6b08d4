"""Outgoing copies: the calls in flight, each in a thread and on a connection of its own, and how the last ones ended.

A connection of its own because libvirtd serves only so many calls of one client at once (five, as it is shipped): four
migrations on the common one would leave a single slot for everything else. Opening it takes a millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import libvirt

from droveway.domain.migration_ladder import AT_ONCE_MAX, CopyTarget, Policy
from droveway.domain.model import LocalFiles, MigrationEndpoint
from droveway.domain.peer_uri import WrongUri
from droveway.domain.peer_uri import checked as checked_endpoint
from droveway.domain.volume.disks import VolumeDisk
from droveway.drivers.hypervisor.libvirt.connection import (
    ConnectionLost,
    checked,
    in_daemon_thread,
    open_connection,
    reason_of,
)
from droveway.drivers.hypervisor.libvirt.leaving import targets, xml_there
from droveway.ports.hypervisor import HypervisorDown, HypervisorRefused

AT_ONCE = AT_ONCE_MAX  # how many there are is control's; this bounds what it may ask for
KEPT_ERRORS = 1024
THROTTLE_FIRST, THROTTLE_STEP = 30, 25  # percent of CPU time: as soon as a guest must be slowed down, it is felt
FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER  # libvirtd itself carries it: it goes on when this process dies
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    # libvirt treats a store as shared only when it knows the file system; that both hosts see the same one is
    # checked with a test file before, and the disk's cache=none keeps the two page caches apart.
    | libvirt.VIR_MIGRATE_UNSAFE
)


class Order(NamedTuple):
    """How one guest is copied. `volumes`: as it opens them there. `resumes`: a post-copy that has failed, and nothing
    else."""

    to: MigrationEndpoint
    files: LocalFiles
    target: CopyTarget
    volumes: tuple[VolumeDisk, ...] = ()
    resumes: bool = False


class OutgoingCopies:
    """In the event loop only."""

    def __init__(self, uri: str, instances_path: str, changed: Callable[[str], None]) -> None:
        self._uri, self._instances_path, self._changed = uri, instances_path, changed
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._calls: dict[str, asyncio.Task[str]] = {}
        self._waiting: dict[str, None] = {}  # calls that have not got a slot yet
        self._errors: dict[str, str] = {}

    def error(self, instance_id: str) -> str:
        """The sentence of the last copy that failed; empty while one is in flight."""
        return "" if instance_id in self._calls else self._errors.get(instance_id, "")

    def in_flight(self, instance_id: str) -> asyncio.Task[str] | None:
        return self._calls.get(instance_id)

    def forget(self, instance_id: str) -> None:
        self._errors.pop(instance_id, None)

    def begin(self, instance_id: str, order: Order) -> asyncio.Task[str]:
        """The task ends when the call has, with its complaint; it never raises."""
        self._errors.pop(instance_id, None)
        self._waiting[instance_id] = None
        task = asyncio.create_task(self._carry(instance_id, order), name=f"copy {instance_id}")
        self._calls[instance_id] = task
        task.add_done_callback(lambda ended: self._ended(instance_id, ended))
        return task

    def withdraw(self, instance_id: str) -> bool:
        """Take back a call that still waits for its turn; False when it is on its way."""
        if instance_id not in self._waiting:
            return False
        self._calls[instance_id].cancel()
        return True

    def close(self) -> None:
        """Stop waiting for the calls. What libvirtd carries goes on."""
        for task in tuple(self._calls.values()):
            task.cancel()

    async def _carry(self, instance_id: str, order: Order) -> str:
        try:
            async with contextlib.nullcontext() if order.resumes else self._slots:
                self._waiting.pop(instance_id, None)
                await in_daemon_thread(f"copy-{instance_id[:8]}", lambda: self._call(instance_id, order))
        except ConnectionLost as lost:
            # No verdict: a libvirtd that was killed has ended the copy, a connection that was cut has not.
            return f"The hypervisor's connection broke during the copy: {lost}."
        except (HypervisorRefused, HypervisorDown) as fault:
            return fault.reason
        except libvirt.libvirtError as error:
            return f"The hypervisor could not be reached for the copy: {reason_of(error)}."
        return ""

    def _ended(self, instance_id: str, task: asyncio.Task[str]) -> None:
        self._waiting.pop(instance_id, None)
        self._calls.pop(instance_id, None)
        reason = "The copy was withdrawn before it began." if task.cancelled() else task.result()
        if reason:
            self._errors[instance_id] = reason
            while len(self._errors) > KEPT_ERRORS:
                self._errors.pop(next(iter(self._errors)))
        self._changed(instance_id)

    def _call(self, instance_id: str, order: Order) -> None:
        # Where libvirtd, which is root, connects to was said by another host: nothing passes but an address.
        to, files = order.to, order.files
        try:
            peer_uri, data_uri = checked_endpoint(to)
        except WrongUri as wrong:
            raise HypervisorRefused(f"Guest {instance_id} is not sent to {to.host[:64]}: {wrong}.") from None

        def migrate(connection: Any) -> None:
            domain = connection.lookupByUUIDString(instance_id)
            parameters: dict[str, Any] = {}
            by_tls = _stream(data_uri, to.host, parameters)
            parameters |= xml_there(domain, self._instances_path, to, order.volumes)
            if files.disks:
                parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = targets(domain, files)
            flags = FLAGS | _copying(files) | by_tls
            if order.resumes:
                flags |= libvirt.VIR_MIGRATE_POSTCOPY | libvirt.VIR_MIGRATE_POSTCOPY_RESUME
            else:
                domain.migrateSetMaxDowntime(order.target.downtime_ms)  # before it, or a small guest is there sooner
                flags |= _bearing(order.target, parameters)
            domain.migrateToURI3(peer_uri, parameters, flags)

        connection = open_connection(self._uri)
        try:
            checked(connection, migrate)
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()


def _stream(data_uri: str, host: str, parameters: dict[str, Any]) -> int:
    """Where its memory goes, and its disks: by TLS both or neither. QEMU there shows a certificate of that host's name,
    and wants one that the cloud has signed."""
    address = data_uri.removeprefix("tls://")
    if address == data_uri:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = data_uri
        return 0
    parameters[libvirt.VIR_MIGRATE_PARAM_URI] = f"tcp://{address}"  # libvirt's own URIs know no other way
    parameters[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = host
    return int(libvirt.VIR_MIGRATE_TLS)


def _bearing(target: CopyTarget, parameters: dict[str, Any]) -> int:
    """What its guest may be made to bear; the numbers of it go into `parameters`."""
    if target.bandwidth_mib_s:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = target.bandwidth_mib_s
    if target.policy is Policy.POST_COPY:
        return int(libvirt.VIR_MIGRATE_POSTCOPY)
    if target.policy is not Policy.AUTO_CONVERGE:
        return 0
    parameters[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL] = THROTTLE_FIRST
    parameters[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT] = THROTTLE_STEP
    return int(libvirt.VIR_MIGRATE_AUTO_CONVERGE)


def _copying(files: LocalFiles) -> int:
    """What of its disks is copied: what differs from the image behind them, where the destination has that, or all."""
    if not files.disks:
        return 0
    return int(libvirt.VIR_MIGRATE_NON_SHARED_INC if files.is_on_base else libvirt.VIR_MIGRATE_NON_SHARED_DISK)
