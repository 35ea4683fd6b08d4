"""What leaves the store: a row is a dictionary whose type says each column, so that mypy knows a name that is none.

One class a table, with the keys, nullability and types of schema.py (tests/store/test_rows.py compares them); rows that
are a part of a table, or of several, have a class of their own. A row gets its type in engine/results.py.

More than 400 lines because every row stands here, as every table does in schema.py.
"""

from __future__ import annotations

from typing import Any, TypedDict

Object = dict[str, Any]  # JSON


# -- image, flavor ----------------------------------------------------------------------------------------------------
class ImageRow(TypedDict):
    id: str
    project_id: str
    name: str | None
    status: str
    visibility: str
    protected: bool
    container_format: str | None
    disk_format: str | None
    min_ram_mb: int
    min_disk_gb: int
    size_bytes: int | None
    virtual_size_bytes: int | None
    checksum: str | None
    sha512: str | None
    properties: dict[str, str]
    tags: list[str]
    generation: int
    data_kept: bool
    created_at_us: int
    updated_at_us: int


class ImageMemberRow(TypedDict):
    image_id: str
    member: str
    status: str
    created_at_us: int
    updated_at_us: int


class FlavorRow(TypedDict):
    id: str
    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    ephemeral_gb: int
    swap_mb: int
    rxtx_factor: float
    is_public: bool
    disabled: bool
    description: str | None
    extra_specs: dict[str, str]
    project_id: str | None


# -- hosts and services -----------------------------------------------------------------------------------------------
class CertificateRow(TypedDict):
    serial: str
    authority: str
    kind: str
    name: str
    names: list[str]
    not_before_us: int
    not_after_us: int
    revoked_at_us: int | None
    revoked_because: str | None
    trusts: list[str] | None


class HostRow(TypedDict):
    name: str
    id: int
    uuid: str
    zone: str
    resources: Object | None
    hypervisor_up: bool
    reason: str
    claims: int
    reported_at_us: int | None
    generation: int
    refused: str
    protocol: int
    fence: int
    declared: str
    declared_because: str
    declared_at_us: int | None


class UsableRow(TypedDict):
    """Whether a service may be used: a part of what ServiceRow and HostWithUse hold."""

    disabled: bool
    forced_down: bool
    is_up: bool


class HostWithUse(HostRow):
    """A host with its compute service and the sums of what is held there."""

    service_id: int
    service_uuid: str
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    is_up: bool
    service_reason: str
    vcpus_used: int
    ram_mb_used: int
    disk_gb_used: int
    running_vms: int


class HostHealth(TypedDict):
    hypervisor_up: bool
    reason: str
    reported_at_us: int | None
    refused: str
    resources: Object | None
    declared: str
    declared_because: str


class AggregateRow(TypedDict):
    id: int
    uuid: str
    name: str
    metadata: dict[str, str]
    created_at_us: int
    updated_at_us: int | None


class Aggregate(AggregateRow):
    """With the names of its hosts."""

    hosts: list[str]


class JoinTokenRow(TypedDict):
    hash: str
    host: str | None
    created_at_us: int
    expires_at_us: int
    used_at_us: int | None
    used_by: str | None
    addresses: list[str] | None


class ServiceRow(TypedDict):
    id: int
    uuid: str
    host: str
    binary: str
    topic: str
    zone: str
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    is_up: bool
    state: str
    since_us: int | None
    reason: str
    report_count: int
    created_at_us: int
    updated_at_us: int | None


class BeatRow(TypedDict):
    """A service with the verdict of the database's own clock on its heartbeat."""

    host: str
    binary: str
    report_count: int
    updated_at_us: int | None
    age_us: int
    is_alive: bool


# -- instances, migrations --------------------------------------------------------------------------------------------
class InstanceRow(TypedDict):
    id: str
    number: int
    project_id: str
    user_id: str
    name: str
    hostname: str
    description: str | None
    metadata: dict[str, str]
    tags: list[str]
    key_name: str | None
    config_drive: bool
    reservation_id: str
    zone: str | None
    locked: bool
    locked_by: str | None
    locked_reason: str | None
    access_ipv4: str | None
    access_ipv6: str | None
    auto_disk_config: bool
    flavor: Object
    flavor_id: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    image_id: str | None
    image_properties: dict[str, str]
    host: str | None
    vm_state: str
    task_state: str | None
    power_state: int
    progress: int
    ran_boot_id: str | None
    fault: Object | None
    fence: int
    created_at_us: int
    updated_at_us: int
    launched_at_us: int | None
    terminated_at_us: int | None
    deleted: bool
    launch_index: int
    hints: Object | None
    server_group_id: str | None
    held_cells: list[Object] | None
    shelved_image_id: str | None
    former: Object | None
    resized_at_us: int | None
    shelved_at_us: int | None
    soft_deleted_at_us: int | None
    guest_password: str | None
    root_pool: str | None


class ConsoleTokenRow(TypedDict):
    hash: str
    instance_id: str
    host: str
    kind: str
    user_id: str
    project_id: str
    as_admin: bool
    expires_at_us: int


class FileCleanupRow(TypedDict):
    host: str
    instance_id: str
    mark: str
    when_deleted: bool
    tried_at_us: int


class DeferredCleanupRow(TypedDict):
    """A deleted instance whose removal was left for later, and the host that must do it."""

    id: str
    fence: int
    host: str
    root_pool: str | None


class UsageRow(TypedDict):
    """An instance as the usage of its project counts it."""

    id: str
    name: str
    project_id: str
    vcpus: int
    ram_mb: int
    flavor: Object
    vm_state: str
    launched_at_us: int  # one that never ran is not counted
    terminated_at_us: int | None
    created_at_us: int


class HoldingRow(TypedDict):
    """What an instance, or a migration, holds of the NUMA cells of a host: a part of both their rows."""

    held_cells: list[Object] | None


class ServerGroupRow(TypedDict):
    id: str
    project_id: str
    user_id: str
    name: str
    policy: str
    max_server_per_host: int | None
    created_at_us: int


class ServerGroupWithMembers(ServerGroupRow):
    members: list[str]


class KeypairRow(TypedDict):
    id: int
    user_id: str
    name: str
    type: str
    public_key: str
    fingerprint: str
    created_at_us: int


class GuestDataRow(TypedDict):
    instance_id: str
    user_data: str | None
    key_type: str | None
    public_key: str | None
    admin_password: str | None


class ServerPortRow(TypedDict):
    instance_id: str
    port_id: str
    place: int
    tag: str | None
    is_made: bool


class PlacementRow(TypedDict):
    id: int
    at_us: int
    instance_id: str
    saga_id: str
    project_id: str
    host: str | None
    body: Object


class MigrationRow(TypedDict):
    id: int
    uuid: str
    instance_id: str
    migration_type: str
    status: str
    source: str
    destination: str | None
    holds_claim: bool
    vcpus: int
    ram_mb: int
    disk_gb: int
    held_cells: list[Object] | None
    saga_id: str
    user_id: str
    project_id: str
    memory_total_bytes: int | None
    memory_processed_bytes: int | None
    memory_remaining_bytes: int | None
    disk_total_bytes: int | None
    disk_processed_bytes: int | None
    disk_remaining_bytes: int | None
    progress: Object | None
    forced: bool
    error: str
    created_at_us: int
    updated_at_us: int


class MigrationWithName(MigrationRow):
    instance_name: str


class PredictionRow(TypedDict):
    saga_id: str
    instance_id: str
    source: str
    destination: str
    mode: str
    bytes: int
    dirty_bytes_per_s: int | None
    learnt_from: int
    predicted_ms: int | None
    predicted_downtime_ms: int | None
    outcome: str
    duration_ms: int | None
    downtime_ms: int | None
    at_us: int


class PredictionWithName(PredictionRow):
    instance_name: str | None


# -- sagas, leases, events --------------------------------------------------------------------------------------------
class SagaRow(TypedDict):
    id: str
    kind: str
    subject_kind: str
    subject_id: str
    holds: int
    project_id: str
    status: str
    step: str
    unreadable: str | None
    generation: int
    owner: str | None
    owner_epoch: int | None
    params: Object
    notes: Object
    error: str
    cancel: str | None
    broken_while: str | None
    blocked: str | None
    queued_after: str | None
    request_id: str
    user_id: str | None
    created_at_us: int
    updated_at_us: int
    ended: bool


class ServerRequestRow(TypedDict):
    id: str
    instance_id: str
    kind: str
    request_id: str
    user_id: str
    project_id: str
    at_us: int


class ActionRow(TypedDict):
    """What a request asked of a server: a saga, or what was done at once."""

    id: str
    kind: str
    request_id: str
    user_id: str | None
    project_id: str
    instance_id: str
    created_at_us: int
    updated_at_us: int
    blocked: str | None
    error: str
    status: str
    step: str
    notes: Object


class WaitingRow(TypedDict):
    """A saga that waits for room, with the name and the project of its server."""

    id: str
    kind: str
    subject_id: str
    blocked: str
    params: Object
    created_at_us: int
    name: str
    project_id: str


class LeaseRow(TypedDict):
    name: str
    owner: str
    epoch: int
    counter: int


class EventRow(TypedDict):
    id: int
    at_us: int
    kind: str
    subject_kind: str
    subject_id: str
    project_id: str | None
    body: Object
