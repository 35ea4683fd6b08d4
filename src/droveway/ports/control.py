"""What may be asked of a control: one protocol, which the control implements (control/answers.py) and the API calls.

An API beside its control calls that one. From another process the same calls travel over the bus; that end is derived
from this protocol (ports/asking.py), so a new question is a method here and one in control/answers.py. Arguments and
results are values that msgspec turns into plain ones and back; faults travel by their type (domain/faults.py). A caller
in another process may get Unreachable as well: no control answers. Nothing is changed, but by `repair`.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from droveway.domain.audit_findings import Finding
from droveway.domain.consoles import ConsoleKind
from droveway.domain.cpu_baseline import CpuBaseline
from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.metrics import LivenessMetrics, TaskStatus
from droveway.domain.move_plan import MoveMatrix, MovePlan
from droveway.domain.resources import LastReport
from droveway.domain.volume.model import StoredVolume
from droveway.domain.why import Explanation
from droveway.ports.asking import Recipient, question

# How long control may take over an answer; a caller in another process waits a little longer.
CONSOLE_TIMEOUT_S = 5.0
LIST_TASKS_TIMEOUT_S = 3.0
STORED_VOLUMES_TIMEOUT_S = 10.0
PLAN_MOVE_S = 12.0
LOOK_MAX_S = 8.0  # hosts that have not been asked by then are said not to have been looked at
COMPARE_MAX_S = 8.0  # a repair looks, repairs and looks: together it ends before a client gives up
AUDIT_S = LOOK_MAX_S + 2.0
REPAIR_S = 2 * AUDIT_S + COMPARE_MAX_S


class DryRunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dry run. `server`: the request of that server again; else `flavor`, and what else a server is made with."""

    flavor: str = ""
    image: str | None = None
    zone: str | None = None
    host: str | None = None
    group: str | None = None
    server: str | None = None
    properties: dict[str, str] = {}
    count: int = 1


class HostCount(msgspec.Struct, frozen=True):
    host: str
    count: int


class DryRunResult(msgspec.Struct, frozen=True):
    """One decision for each guest, each seeing the ones before it; and how many each host would get."""

    placements: list[dict[str, Any]]
    spread: list[HostCount]


class Replay(msgspec.Struct, frozen=True):
    """The newest decision about a server, as it was taken and as it would be now. `server`: {id, name, host}."""

    server: dict[str, Any]
    then: dict[str, Any]
    now: dict[str, Any]
    differs: dict[str, Any]


class SkippedHost(msgspec.Struct, frozen=True):
    host: str
    because: str


class AuditResult(msgspec.Struct, frozen=True):
    """`more`: how many findings there are beside those listed."""

    at_us: int
    hosts: int
    hosts_answered: int
    instances: int
    not_looked_at: list[SkippedHost]
    findings: list[Finding]
    more: int


class UnrepairedFinding(msgspec.Struct, frozen=True):
    finding: Finding
    because: str


class RepairResult(msgspec.Struct, frozen=True):
    """`gone`: keys of what is not found any more."""

    done: list[Finding]
    left: list[UnrepairedFinding]
    gone: list[str]


class MoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dry run of a live migration. `host`: the destination; None: those that come into question. `measure`: how fast
    the guest dirties its memory, which takes a second."""

    server: str
    host: str | None = None
    block_migration: bool | str | None = "auto"
    disk_over_commit: bool = True
    measure: bool = True


class ControlQueries(Protocol):
    @question("why", recipient=Recipient.DETECTOR)
    async def why(self, host: str, binary: str) -> Explanation:
        """The verdict on that service, with its evidence and advice. Raises NotFound, Busy."""

    @question("console", within_s=CONSOLE_TIMEOUT_S)
    async def read_console(self, host: str, instance_id: str, length_lines: int | None) -> str:
        """The guest's console, from its host; None: all of it. Raises Unreachable, Conflict."""

    @question("diagnostics", within_s=CONSOLE_TIMEOUT_S)
    async def read_diagnostics(self, host: str, instance_id: str) -> GuestDiagnostics:
        """What the guest has used, from its host. Raises Unreachable, Conflict."""

    @question("open_console", within_s=CONSOLE_TIMEOUT_S)
    async def open_console(self, host: str, instance_id: str, kind: ConsoleKind, url: str, session: str) -> None:
        """Let that host carry a console of the guest to the API at `url`, for the session of that secret name. Raises
        Unreachable, Conflict."""

    @question("stored_volumes", within_s=STORED_VOLUMES_TIMEOUT_S)
    async def list_stored_volumes(self, backend: str) -> list[StoredVolume]:
        """Everything of ours that lies on HOST@BACKEND, from its service. Raises Unreachable, Conflict."""

    @question("tasks", within_s=LIST_TASKS_TIMEOUT_S, recipient=Recipient.NAMED)
    async def list_tasks(self, host: str) -> list[TaskStatus]:
        """The periodic tasks of that host's agent, or of the control of that name. Raises NotFound, Unreachable,
        Conflict."""

    @question("metrics")
    async def liveness_metrics(self) -> LivenessMetrics:
        """What is counted, for `/metrics`."""

    @question("heard")
    async def last_reports(self, *names: str) -> dict[str, LastReport]:
        """What these hosts, or all, have last reported that is not in the store; of one host alone, what its guests
        use, too."""

    @question("try")
    async def try_placement(self, wanted: DryRunRequest) -> DryRunResult:
        """A dry run: nothing is claimed. Raises NotFound, Conflict, BadRequest."""

    @question("replay")
    async def replay_placement(self, server: str) -> Replay:
        """The newest decision about that server, again. Raises NotFound, Conflict."""

    @question("plan_move", within_s=PLAN_MOVE_S)
    async def plan_move(self, wanted: MoveRequest) -> MovePlan:
        """A dry run of a live migration: both ends are asked, nothing is claimed and no file is left. Raises NotFound,
        Conflict, BadRequest."""

    @question("migratable", within_s=PLAN_MOVE_S)
    async def move_matrix(self, host: str | None) -> MoveMatrix:
        """Which servers, all or those of that host, could move to which hosts. Raises NotFound."""

    @question("cpu_baseline", within_s=PLAN_MOVE_S)
    async def cpu_baseline(self, aggregate: str) -> CpuBaseline:
        """The CPU that every host of the aggregate of that name can run. Raises NotFound, BadRequest."""

    @question("audit", within_s=AUDIT_S)
    async def audit(self) -> AuditResult:
        """What is wrong between rows, guests and claims. Raises Busy while another audit is under way."""

    @question("repair", within_s=REPAIR_S)
    async def repair(self, keys: list[str]) -> RepairResult:
        """Of the findings with these keys those that are safe to repair and still true. Raises Busy, BadRequest."""
