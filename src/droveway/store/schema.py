"""All tables. Times are integer microseconds UTC; structures are JSON text; every changing row carries `generation`.

An allocation is not a table: it is the sum over `instances.host` and over the destinations of migrations under way,
so it cannot be orphaned. More than 400 lines because every table stands here.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

import droveway.store.identity.tables
import droveway.store.network.tables
import droveway.store.volume.tables  # noqa: F401 - with those of identity, networks and volumes they are all
from droveway.store.columns import ID, LONG_ID, Json, metadata

__all__ = ["ID", "LONG_ID", "Json", "metadata"]


# -- image, flavor ----------------------------------------------------------------------------------------------------
images = Table(
    "images",
    metadata,
    Column("id", ID, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("name", String(255), index=True),
    Column("status", String(16), nullable=False),  # queued saving active deactivated deleted
    Column("visibility", String(16), nullable=False),
    Column("protected", Boolean, nullable=False, default=False),
    Column("container_format", String(16)),
    Column("disk_format", String(16)),
    Column("min_ram_mb", Integer, nullable=False, default=0),
    Column("min_disk_gb", Integer, nullable=False, default=0),
    Column("size_bytes", BigInteger),
    Column("virtual_size_bytes", BigInteger),
    Column("checksum", String(32)),
    Column("sha512", String(128)),
    Column("properties", Json, nullable=False),
    Column("tags", Json, nullable=False),
    Column("generation", Integer, nullable=False, default=0),
    Column("data_kept", Boolean, nullable=False, default=False),  # of a deleted image, for hosts whose servers use it
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Index("ix_images_project", "project_id"),
)
image_members = Table(  # projects with which an image is shared
    "image_members",
    metadata,
    Column("image_id", ID, primary_key=True),
    Column("member", String(255), primary_key=True, index=True),
    Column("status", String(16), nullable=False),  # pending accepted rejected
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
)
console_tokens = Table(  # each opens one session of one console, once
    "console_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("instance_id", ID, nullable=False, index=True),
    Column("host", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("as_admin", Boolean, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
)
ticket_keys = Table(  # sign the tickets for image data; the newest few, in turn
    "ticket_keys",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("secret", String(64), nullable=False),
)
spent_tickets = Table(  # what was fetched or sent whole with a ticket; gone with its key
    "spent_tickets",
    metadata,
    Column("id", ID, primary_key=True),
    Column("key_number", Integer, nullable=False),
)
flavors = Table(
    "flavors",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("vcpus", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_gb", Integer, nullable=False),
    Column("ephemeral_gb", Integer, nullable=False, default=0),
    Column("swap_mb", Integer, nullable=False, default=0),
    Column("rxtx_factor", Float, nullable=False, default=1.0),
    Column("is_public", Boolean, nullable=False, default=True),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("description", Text),
    Column("extra_specs", Json, nullable=False),
    Column("project_id", String(64)),
)
flavor_access = Table(  # which projects may use a flavor that is not public
    "flavor_access",
    metadata,
    Column("flavor_id", String(255), ForeignKey("flavors.id"), primary_key=True),
    Column("project_id", String(64), primary_key=True),
)
quotas = Table(  # what differs from the defaults of the configuration
    "quotas",
    metadata,
    Column("scope", String(80), primary_key=True),  # project:ID or class:default
    Column("resource", String(32), primary_key=True),
    Column("hard_limit", Integer, nullable=False),  # -1: no limit
)

# -- hosts and services -----------------------------------------------------------------------------------------------
hosts = Table(
    "hosts",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("id", Integer, nullable=False, unique=True),
    Column("uuid", ID, nullable=False, unique=True),
    Column("zone", String(255), nullable=False),
    Column("resources", Json),
    Column("hypervisor_up", Boolean, nullable=False, default=False),
    Column("reason", Text, nullable=False, default=""),
    # Counts every change of what is held on the host or of whether it may be used: compare-and-swap for placers.
    Column("claims", Integer, nullable=False, default=0),
    Column("reported_at_us", BigInteger),
    Column("generation", BigInteger, nullable=False, default=0),  # of the report that stands here
    Column("refused", Text, nullable=False, default=""),  # why its last report was refused
    Column("protocol", Integer, nullable=False, default=1),  # what its agent speaks
    Column("fence", Integer, nullable=False, default=0),  # as of an instance
    Column("declared", String(16), nullable=False, default=""),  # an operator's word (store/fleet/declared.py), and why
    Column("declared_because", Text, nullable=False, default=""),
    Column("declared_at_us", BigInteger),
    Index("ix_hosts_claims", "name", "claims"),  # every placer looks at these two alone, often
)
aggregates = Table(
    "aggregates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", ID, nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("metadata", Json, nullable=False),  # the zone too, as availability_zone
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger),
)
aggregate_hosts = Table(
    "aggregate_hosts",
    metadata,
    Column("aggregate_id", Integer, ForeignKey("aggregates.id"), primary_key=True),
    Column("host", String(255), primary_key=True),
    Index("ix_aggregate_hosts_host", "host"),
)
join_tokens = Table(  # one agent may join with each
    "join_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),  # sha256 of the token
    Column("host", String(255)),  # None: any
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False, index=True),
    Column("used_at_us", BigInteger),
    Column("used_by", String(255)),
    Column("addresses", Json),  # at which other hosts find this one; an operator's word, for its certificate
)
authorities = Table(  # of the private CA; their keys are in no database
    "authorities",
    metadata,
    Column("fingerprint", String(64), primary_key=True),  # sha256 of the certificate
    Column("certificate", Text, nullable=False),  # PEM
    Column("state", String(16), nullable=False),  # trusted signing retired (domain/certificates.py)
    Column("created_at_us", BigInteger, nullable=False),
    Column("not_after_us", BigInteger, nullable=False),
)
certificates = Table(  # what they have signed for hosts, and for services that an operator names
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("authority", String(64), nullable=False),
    Column("kind", String(16), nullable=False),  # host service
    Column("name", String(255), nullable=False),
    Column("names", Json, nullable=False),  # DNS names and IP addresses in it
    Column("not_before_us", BigInteger, nullable=False),
    Column("not_after_us", BigInteger, nullable=False),
    Column("revoked_at_us", BigInteger),
    Column("revoked_because", String(32)),
    Column("trusts", Json),  # fingerprints of the authorities that its holder trusts, as it has said
    Index("ix_certificates_subject", "kind", "name", "not_after_us"),
    Index("ix_certificates_not_after_us", "not_after_us"),
)
certificate_names = Table(  # a name here is certified for its owner alone
    "certificate_names",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("owner", String(255), nullable=False),
    Index("ix_certificate_names_owner", "kind", "owner"),
)
services = Table(
    "services",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", ID, nullable=False, unique=True),
    Column("host", String(255), nullable=False),  # or host@backend, where a host has several of a kind
    Column("binary", String(255), nullable=False),
    Column("topic", String(255), nullable=False),  # what it is asked about, as its kind says
    Column("zone", String(255), nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("disabled_reason", Text),
    Column("forced_down", Boolean, nullable=False, default=False),
    Column("is_up", Boolean, nullable=False, default=False),
    Column("state", String(16), nullable=False, default="expected"),  # of the failure detector; is_up follows from it
    Column("since_us", BigInteger),  # when that was concluded
    Column("reason", Text, nullable=False, default=""),
    Column("report_count", BigInteger, nullable=False, default=0),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger),
    UniqueConstraint("host", "binary"),
)

# -- instances, migrations --------------------------------------------------------------------------------------------
instances = Table(
    "instances",
    metadata,
    Column("id", ID, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("description", Text),
    Column("metadata", Json, nullable=False),
    Column("tags", Json, nullable=False),
    Column("key_name", String(255)),
    Column("config_drive", Boolean, nullable=False, default=False),
    Column("reservation_id", String(64), nullable=False),
    Column("zone", String(255)),  # the zone asked for
    Column("locked", Boolean, nullable=False, default=False),
    Column("locked_by", String(16)),  # owner admin (domain/model.py: LockedBy); None: not locked
    Column("locked_reason", Text),
    Column("access_ipv4", String(15)),  # where it is said to be reached; nothing here looks at it
    Column("access_ipv6", String(39)),
    Column("auto_disk_config", Boolean, nullable=False, default=False),
    Column("flavor", Json, nullable=False),
    Column("flavor_id", String(255), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_gb", Integer, nullable=False),  # what it holds of its host's: root, ephemeral and swap
    Column("image_id", ID),
    Column("image_properties", Json, nullable=False, default={}),  # what it took from its image when it was made
    Column("host", String(255)),
    Column("vm_state", String(16).with_variant(String(32), "postgresql"), nullable=False),  # SQLite heeds no length
    Column("task_state", String(32)),
    Column(
        "power_state", Integer, nullable=False, default=0
    ),  # Nova's numbers: 0 none 1 running 3 paused 4 shutdown 6 crashed
    Column("progress", Integer, nullable=False, default=0),
    Column("ran_boot_id", String(64)),  # the boot of its host during which it was last known to run
    Column("fault", Json),
    Column(
        "fence", Integer, nullable=False, default=0
    ),  # no lower than the generation of any saga of it that has ended
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("launched_at_us", BigInteger),
    Column("terminated_at_us", BigInteger),
    Column("deleted", Boolean, nullable=False, default=False),
    Column("launch_index", Integer, nullable=False, default=0),
    Column("hints", Json),  # the scheduler hints as they were given
    Column("server_group_id", ID),
    Column("held_cells", Json),  # of its host's NUMA cells (domain/placement.py: HeldCell)
    Column("shelved_image_id", ID),  # what its root disk was made into
    Column("former", Json),  # until its resize or cold move is confirmed (domain/resize.py)
    Column("resized_at_us", BigInteger),
    Column("shelved_at_us", BigInteger),
    Column("soft_deleted_at_us", BigInteger),  # it may be restored until it is reclaimed
    Column("guest_password", Text),  # as its guest has told it, encrypted with its key
    Column("root_pool", String(255)),  # of Ceph, in which its root disk lies: FSID/POOL; None: with its host, as a file
    Index("ix_instances_project", "project_id", "deleted", "created_at_us"),
    Index("ix_instances_host", "host"),
    Index(
        "ix_instances_root_pool",
        "root_pool",
        sqlite_where=text("root_pool IS NOT NULL"),
        postgresql_where=text("root_pool IS NOT NULL"),
    ),
    Index(
        "ix_instances_group",
        "server_group_id",
        sqlite_where=text("server_group_id IS NOT NULL"),
        postgresql_where=text("server_group_id IS NOT NULL"),
    ),
    Index(
        "ix_instances_quota",
        "project_id",
        "vcpus",
        "ram_mb",
        "deleted",
        sqlite_where=text("NOT deleted"),
        postgresql_where=text("NOT deleted"),
    ),
)
server_groups = Table(
    "server_groups",
    metadata,
    Column("id", ID, primary_key=True),
    Column("project_id", String(64), nullable=False, index=True),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("policy", String(32), nullable=False),
    Column("max_server_per_host", Integer),  # of anti-affinity; None: one
    Column("created_at_us", BigInteger, nullable=False),
)
keypairs = Table(
    "keypairs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("type", String(16), nullable=False),  # ssh | x509
    Column("public_key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("user_id", "name"),
)
guest_data = Table(  # what a guest is told of itself; apart from instances, whose lists need not read it
    "guest_data",
    metadata,
    Column("instance_id", ID, ForeignKey("instances.id"), primary_key=True),
    Column("user_data", Text),  # base64, as it was given
    Column("key_type", String(16)),
    Column("public_key", Text),  # as it was when the server was made
    Column("admin_password", String(255)),  # that was wished for it; on its config drive alone
)
server_ports = Table(  # the interfaces of each server; one whose port is gone is none
    "server_ports",
    metadata,
    Column("instance_id", ID, primary_key=True),
    Column("port_id", ID, primary_key=True, index=True),
    Column("place", Integer, nullable=False),  # in which the guest sees it
    Column("tag", String(60)),
    Column("is_made", Boolean, nullable=False),  # by compute, which deletes it with the server
)
server_requests = Table(  # what was asked of a server and done at once; what takes longer is a saga
    "server_requests",
    metadata,
    Column("id", ID, primary_key=True),
    Column("instance_id", ID, nullable=False),
    Column("kind", String(32), nullable=False),  # as instance actions call it
    Column("request_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),  # of who asked
    Column("at_us", BigInteger, nullable=False, index=True),
    Index("ix_server_requests_instance", "instance_id", "at_us"),
)
placements = Table(  # each decision with its reasons; aged out
    "placements",
    metadata,
    Column("id", LONG_ID, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("instance_id", ID, nullable=False),
    Column("saga_id", ID, nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("host", String(255)),  # the one chosen; None: no host was found
    Column("body", Json, nullable=False),
    Index("ix_placements_instance", "instance_id", "id"),
)
migrations = Table(
    "migrations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", ID, nullable=False, unique=True),
    Column("instance_id", ID, ForeignKey("instances.id"), nullable=False, index=True),
    Column("migration_type", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("source", String(255), nullable=False),
    Column("destination", String(255)),
    Column("holds_claim", Boolean, nullable=False, default=False),  # counts at the destination until switched or undone
    Column("vcpus", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_gb", Integer, nullable=False),
    Column("held_cells", Json),  # of the destination's NUMA cells, while the claim is held
    Column("saga_id", ID, nullable=False, index=True),
    Column("user_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("memory_total_bytes", BigInteger),
    Column("memory_processed_bytes", BigInteger),
    Column("memory_remaining_bytes", BigInteger),
    Column("disk_total_bytes", BigInteger),
    Column("disk_processed_bytes", BigInteger),
    Column("disk_remaining_bytes", BigInteger),
    Column("progress", Json),  # what else is known of the copy (store/compute/migrations.py: ShownProgress)
    Column("forced", Boolean, nullable=False, default=False, server_default="0"),  # it is to complete at any price
    Column("error", Text, nullable=False, default=""),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Index("ix_migrations_source", "source", "status"),
    Index(
        "ix_migrations_claims", "destination", sqlite_where=text("holds_claim"), postgresql_where=text("holds_claim")
    ),
)
# What was foreseen of each migration before its copy began, and how it was.
migration_predictions = Table(
    "migration_predictions",
    metadata,
    Column("saga_id", ID, primary_key=True),  # of the migration
    Column("instance_id", ID, nullable=False),
    Column("source", String(255), nullable=False),
    Column("destination", String(255), nullable=False),
    Column("mode", String(16), nullable=False),  # domain/move_prediction.py
    Column("bytes", BigInteger, nullable=False),  # to be sent once: used memory, and disks
    Column("dirty_bytes_per_s", BigInteger),  # as it had been measured last; None: never
    Column("learnt_from", Integer, nullable=False),  # so many earlier migrations; 0: assumed
    Column("predicted_ms", BigInteger),  # None: it would not have ended
    Column("predicted_downtime_ms", BigInteger),
    Column("outcome", String(16), nullable=False, default=""),  # completed failed
    Column("duration_ms", BigInteger),
    Column("downtime_ms", BigInteger),
    Column("at_us", BigInteger, nullable=False, index=True),
)
file_cleanups = Table(  # files of guests that are to be deleted on hosts which did not answer when they should
    "file_cleanups",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("instance_id", ID, primary_key=True),
    Column("mark", String(64), nullable=False),  # that they bear; empty: none
    Column("when_deleted", Boolean, nullable=False, default=False),  # the server: until then they may be the only ones
    Column("tried_at_us", BigInteger, nullable=False, default=0),
)

# -- will: sagas, leases, events --------------------------------------------------------------------------------------
sagas = Table(
    "sagas",
    metadata,
    Column("id", ID, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("subject_kind", String(16), nullable=False),
    Column("subject_id", String(255), nullable=False),
    Column("holds", Integer, nullable=False, default=0),  # how many rows of saga_subjects are its
    Column("project_id", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("step", String(64), nullable=False),  # the cursor: control/engine/saga.py says what each name means
    Column("unreadable", Text),  # a sentence: why no control that has met it can carry it on
    Column("generation", Integer, nullable=False),
    Column("owner", String(64)),
    Column("owner_epoch", Integer),
    Column("params", Json, nullable=False),
    Column("notes", Json, nullable=False),
    Column("error", Text, nullable=False, default=""),
    Column("cancel", Text),  # the reason of a requested undo, if it is not too late
    Column("broken_while", String(16)),  # the status it had when it broke: a retry goes on in that direction
    Column("blocked", Text),  # a sentence: what it needs before it can go on
    Column("queued_after", ID),
    Column("request_id", String(64), nullable=False, default=""),
    Column("user_id", String(64)),  # who asked; None where that is not known, and nobody did
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("ended", Boolean, nullable=False, default=False),
    Index("ix_sagas_open", "ended", "status"),
    Index("ix_sagas_subject", "subject_id", "subject_kind"),
    Index(
        "uq_sagas_one_active",
        "subject_id",
        "subject_kind",
        unique=True,
        sqlite_where=text("status IN ('forward', 'backward', 'broken')"),
        postgresql_where=text("status IN ('forward', 'backward', 'broken')"),
    ),
)
saga_subjects = Table(  # what a saga that has not ended needs beside its own subject: wanted while queued, then held
    "saga_subjects",
    metadata,
    Column("saga_id", ID, primary_key=True),
    Column("subject_kind", String(16), primary_key=True),
    Column("subject_id", String(255), primary_key=True),
    Column("held", Boolean, nullable=False),
    Index("ix_saga_subjects_subject", "subject_id", "subject_kind"),
    Index(
        "uq_saga_subjects_held",
        "subject_id",
        "subject_kind",
        unique=True,
        sqlite_where=text("held"),
        postgresql_where=text("held"),
    ),
)
leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("counter", BigInteger, nullable=False),
)
events = Table(
    "events",
    metadata,
    Column("id", LONG_ID, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("subject_kind", String(16), nullable=False),
    Column("subject_id", String(255), nullable=False),
    Column("project_id", String(64)),
    Column("body", Json, nullable=False),
    Index("ix_events_subject", "subject_id", "subject_kind", "id"),
)
writers = Table(  # PostgreSQL only: the last commit of each writer (store/engine/postgresql.py)
    "writers",
    metadata,
    Column("name", ID, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
counters = Table(
    "counters", metadata, Column("name", String(32), primary_key=True), Column("value", BigInteger, nullable=False)
)
