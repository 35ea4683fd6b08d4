"""What hosts have reported, until its consumer takes it; and the last of it that was accepted.

This alone changes them: what is given out is the caller's own, or a view that cannot be written. `to_write` wakes
the writer to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Mapping
from itertools import islice
from types import MappingProxyType

import msgspec

from droveway.domain.metrics import TaskMetrics
from droveway.domain.resources import LastReport, is_name
from droveway.domain.service_kinds import Address
from droveway.domain.volume.model import StoragePool
from droveway.ports.bus import GuestChanged, Report

TASKS_MAX = 100  # of one service, in the metrics
CHANGED_MAX = 10_000  # guests that wait to be looked at; the next report tells of the others


class Health(msgspec.Struct, frozen=True):
    """What a service that has no hypervisor last reported of itself. `at_us`: this control's wall clock, for people."""

    at_us: int
    is_well: bool
    reason: str


class Inbox:
    def __init__(self) -> None:
        self.to_write = asyncio.Event()  # there is something for the store
        self._unsaved: dict[str, Report] = {}  # arrived, not yet in the store
        self._complete: dict[str, Report] = {}  # those that were accepted, for the guests loop
        self._last_reports: dict[str, LastReport] = {}  # when each host last reported, and what it measured
        self._refused: dict[str, tuple[str, int]] = {}  # hosts whose agent is not admitted: why, and its protocol
        self._garbled: set[str] = set()  # hosts whose agent said what is no message, since their last report
        self._changed: dict[str, GuestChanged] = {}  # guests that a host said have changed, by instance
        self._tasks: dict[Address, tuple[TaskMetrics, ...]] = {}  # periodic tasks, as the last report told them
        self._health: dict[Address, Health] = {}  # of services that report no guests
        self._pools: dict[Address, tuple[StoragePool, int]] = {}  # what volume services said, not yet in the store
        self._passwords: dict[tuple[str, str], str] = {}  # by host and instance: what guests have set, not yet stored
        self._peer_uris: dict[str, str] = {}  # where other hosts reach a host's hypervisor

    # -- reports that wait to be written ------------------------------------------------------------------------------
    def put_report(self, report: Report) -> None:
        """The newest of each host is kept."""
        self._garbled.discard(report.host)
        waiting = self._unsaved.get(report.host)
        if waiting is None or report.generation >= waiting.generation:
            self._unsaved[report.host] = report
        self.to_write.set()

    def hosts_with_reports(self, but: Container[str] = ()) -> list[str]:
        """The hosts of which one waits."""
        return [host for host in self._unsaved if host not in but]

    def take_reports(self, hosts: Iterable[str]) -> dict[str, Report]:
        """They wait no longer."""
        return {host: self._unsaved.pop(host) for host in hosts}

    def return_reports(self, reports: Mapping[str, Report]) -> None:
        """The store did not take them. One that has come since is newer."""
        self._unsaved = {**reports, **self._unsaved}

    # -- reports that were accepted -----------------------------------------------------------------------------------
    def accept(self, report: Report, last_report: LastReport) -> None:
        self._last_reports[report.host] = last_report
        if report.is_complete:
            self._complete[report.host] = report

    def last_report(self, host: str) -> LastReport | None:
        return self._last_reports.get(host)

    def last_reports(self) -> Mapping[str, LastReport]:
        return MappingProxyType(self._last_reports)

    def keep_heard(self, known: Container[str]) -> None:
        """Of the others nothing is remembered."""
        self._last_reports = {host: last_report for host, last_report in self._last_reports.items() if host in known}

    def complete(self) -> Mapping[str, Report]:
        """They wait on."""
        return MappingProxyType(self._complete)

    def take_complete(self) -> dict[str, Report]:
        taken, self._complete = self._complete, {}
        return taken

    def return_complete(self, reports: Mapping[str, Report]) -> None:
        self._complete = {**reports, **self._complete}

    @property
    def has_complete(self) -> bool:
        return bool(self._complete)

    # -- guests that have changed -------------------------------------------------------------------------------------
    def put_changed(self, notice: GuestChanged) -> bool:
        """What one host says of a guest hides nothing that another says. False: it is no name, or too many wait."""
        instance_id = notice.guest.instance_id
        if not is_name(instance_id) or len(self._changed) >= CHANGED_MAX:
            return False
        other = self._changed.get(instance_id)
        self._changed[instance_id if other is None or other.host == notice.host else f"{instance_id} {notice.host}"] = (
            notice
        )
        return True

    def keep_changed(self, instance_id: str, notice: GuestChanged) -> None:
        """It was too early to decide; what has been said since is newer."""
        self._changed.setdefault(instance_id, notice)

    def take_changed(self) -> dict[str, GuestChanged]:
        taken, self._changed = self._changed, {}
        return taken

    def return_changed(self, changed: Mapping[str, GuestChanged]) -> None:
        self._changed = {**changed, **self._changed}

    @property
    def has_changed(self) -> bool:
        return bool(self._changed)

    # -- agents that are not let in -----------------------------------------------------------------------------------
    def put_refused(self, host: str, reason: str, protocol: int) -> None:
        self._refused[host] = (reason, protocol)
        self.to_write.set()

    def put_garbled(self, host: str, reason: str, protocol: int) -> None:
        """Once, until it reports again."""
        if host not in self._garbled:
            self._garbled.add(host)
            self.put_refused(host, reason, protocol)

    def refused(self, most: int | None = None) -> dict[str, tuple[str, int]]:
        """They wait on, until `drop_refused`."""
        return dict(islice(self._refused.items(), most))

    def drop_refused(self, host: str, refusal: tuple[str, int]) -> None:
        """That was written. What has been said since waits on."""
        if self._refused.get(host) == refusal:
            del self._refused[host]

    # -- pools that wait to be written --------------------------------------------------------------------------------
    def put_pool(self, address: Address, pool: StoragePool, generation: int) -> None:
        """The newest of each backend is kept."""
        self._pools[address] = (pool, generation)
        self.to_write.set()

    def take_pools(self, but: Container[str] = ()) -> dict[Address, tuple[StoragePool, int]]:
        """They wait no longer; those of the hosts that are named do."""
        taken = {address: pool for address, pool in self._pools.items() if address[0] not in but}
        self._pools = {address: pool for address, pool in self._pools.items() if address not in taken}
        return taken

    def return_pools(self, pools: Mapping[Address, tuple[StoragePool, int]]) -> None:
        """The store did not take them. One that has come since is newer."""
        self._pools = {**pools, **self._pools}

    # -- passwords that guests have set -------------------------------------------------------------------------------
    def put_passwords(self, host: str, passwords: Mapping[str, str]) -> None:
        """Those beyond the bound are said again by their hosts."""
        for instance_id, password in islice(passwords.items(), max(0, CHANGED_MAX - len(self._passwords))):
            self._passwords[host, instance_id] = password
        self.to_write.set()

    def take_passwords(self, most: int) -> dict[tuple[str, str], str]:
        """They wait no longer."""
        taken = dict(islice(self._passwords.items(), most))
        self._passwords = {key: password for key, password in self._passwords.items() if key not in taken}
        return taken

    def return_passwords(self, passwords: Mapping[tuple[str, str], str]) -> None:
        """The store did not take them."""
        self._passwords = {**passwords, **self._passwords}

    # -- what is only remembered --------------------------------------------------------------------------------------
    def put_tasks(self, host: str, service: str, tasks: Iterable[TaskMetrics]) -> None:
        own = {one.name: one for one in islice(tasks, TASKS_MAX) if (one.host, one.service) == (host, service)}
        self._tasks[host, service] = tuple(own.values())

    def tasks(self) -> list[TaskMetrics]:
        return [task for some in self._tasks.values() for task in some]

    def put_health(self, host: str, service: str, health: Health) -> None:
        self._health[host, service] = health

    def health(self, host: str, service: str) -> Health | None:
        return self._health.get((host, service))

    def peer_uri(self, host: str) -> str:
        """Where other hosts reach its hypervisor; empty: not known."""
        return self._peer_uris.get(host, "")

    def peer_uris(self) -> Mapping[str, str]:
        return MappingProxyType(self._peer_uris)

    def put_peer_uris(self, uris: Mapping[str, str]) -> None:
        self._peer_uris.update(uris)

    def forget(self, host: str) -> None:
        """Its services were deleted."""
        self._garbled.discard(host)

    def forget_service(self, host: str, service: str) -> None:
        """It was deleted."""
        self._tasks.pop((host, service), None)
        self._health.pop((host, service), None)
        self._pools.pop((host, service), None)
