"""The tables of block storage.

What is allocated on a backend is no column: it is the sum over its volumes and over those that move to it, so none can
be forgotten. That a volume is attached once is held by the database itself.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from droveway.store.columns import ID, LONG_ID, Json, metadata


def _owned() -> tuple[Column[Any], ...]:
    """What everything that a project has made here has."""
    return (
        Column("id", ID, primary_key=True),
        Column("project_id", String(64), nullable=False),
        Column("user_id", String(64), nullable=False),
        Column("name", String(255)),
        Column("description", String(255)),
        Column("created_at_us", BigInteger, nullable=False),
        Column("updated_at_us", BigInteger),
    )


backends = Table(  # what each volume service says of its pool
    "backends",
    metadata,
    Column("name", String(255), primary_key=True),  # HOST@BACKEND, as in the row of its service
    Column("driver", String(64), nullable=False),
    Column("guarantees", Json, nullable=False),  # domain/volume/model.py: StorageGuarantees
    Column("settings", Json, nullable=False),  # likewise: BackendSettings
    Column("total_gb", Float, nullable=False),
    Column("free_gb", Float, nullable=False),
    Column("trouble", Text, nullable=False, default=""),
    Column("frozen", Boolean, nullable=False, default=False),
    Column("claims", Integer, nullable=False, default=0),  # as of a host: compare-and-swap for who places there
    Column("reported_at_us", BigInteger),
    Column("generation", BigInteger, nullable=False, default=0),  # of the report that stands here
)
volumes = Table(
    "volumes",
    metadata,
    *_owned(),
    Column("size_gb", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("previous_status", String(32)),
    Column("migration_status", String(32)),
    Column("zone", String(255), nullable=False),
    Column("host", String(255)),  # HOST@BACKEND; None: it never got one
    Column("moving_to", String(255)),  # likewise, while it is moved there
    Column("volume_type_id", ID),
    Column("snapshot_id", ID),
    Column("source_volume_id", ID),
    Column("image_id", ID),
    Column("disk_format", String(16), nullable=False, default="raw"),
    Column("bootable", Boolean, nullable=False, default=False),
    Column("read_only", Boolean, nullable=False, default=False),
    Column("metadata", Json, nullable=False),
    Column("image_metadata", Json, nullable=False),
    Column("hints", Json),
    Column("growing_to_gb", Integer),  # while it is made larger: so much of the quota it has
    Column("fault", Text, nullable=False, default=""),  # a sentence
    Column("launched_at_us", BigInteger),
    Column("fence", Integer, nullable=False, default=0),
    Index("ix_volumes_project", "project_id", "created_at_us"),
    Index("ix_volumes_host", "host"),
    Index("ix_volumes_snapshot", "snapshot_id"),
    Index("ix_volumes_name", "name"),
)
snapshots = Table(
    "snapshots",
    metadata,
    *_owned(),
    Column("volume_id", ID, nullable=False, index=True),
    Column("size_gb", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("metadata", Json, nullable=False),
    Column("fault", Text, nullable=False, default=""),
    Column("fence", Integer, nullable=False, default=0),
    Index("ix_snapshots_project", "project_id", "created_at_us"),
)
volume_attachments = Table(
    "volume_attachments",
    metadata,
    Column("id", ID, primary_key=True),
    Column("volume_id", ID, nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("instance_id", ID, index=True),  # None: reserved by a client for something that is no server of ours
    Column("host", String(255)),  # which is admitted to it; None: none is
    Column("to_host", String(255)),  # likewise, while its server moves there
    Column("status", String(32), nullable=False),
    Column("read_only", Boolean, nullable=False, default=False),
    Column("device", String(255)),  # vda; as asked for, or as it was found
    Column("source", Json),  # domain/volume/disks.py: DiskSource, once a host is admitted
    Column("connector", Json),  # as a client gave it
    Column("bus", String(16), nullable=False, default="virtio"),
    Column("boot_index", Integer, nullable=False, default=-1),
    Column("place", Integer, nullable=False, default=0),  # in which the guest sees it
    Column("delete_on_termination", Boolean, nullable=False, default=False),
    Column("tag", String(60)),
    Column("attached_at_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
    Index("uq_volume_attachments_volume", "volume_id", unique=True),
)
volume_types = Table(
    "volume_types",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("description", String(255)),
    Column("is_public", Boolean, nullable=False, default=True),
    Column("extra_specs", Json, nullable=False),
    Column("qos_id", ID),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger),
)
volume_type_access = Table(  # which projects may use a type that is not public
    "volume_type_access",
    metadata,
    Column("volume_type_id", ID, primary_key=True),
    Column("project_id", String(64), primary_key=True),
)
volume_qos = Table(
    "volume_qos",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("consumer", String(16), nullable=False),  # front-end back-end both
    Column("specs", Json, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger),
)
volume_type_defaults = Table(  # of projects that have one of their own
    "volume_type_defaults",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("volume_type_id", ID, nullable=False),
)
volume_quotas = Table(  # what differs from the defaults of the configuration
    "volume_quotas",
    metadata,
    Column("scope", String(80), primary_key=True),  # project:ID or class:default
    Column("resource", String(80), primary_key=True),  # one of a single type: gigabytes:ID
    Column("hard_limit", Integer, nullable=False),  # -1: no limit
)
volume_transfers = Table(
    "volume_transfers",
    metadata,
    Column("id", ID, primary_key=True),
    Column("volume_id", ID, nullable=False, unique=True),
    Column("project_id", String(64), nullable=False),  # of who gives
    Column("name", String(255)),
    Column("key_hash", String(64), nullable=False),  # sha256 of the key, which is told once
    Column("no_snapshots", Boolean, nullable=False, default=False),
    Column("created_at_us", BigInteger, nullable=False),
)
volume_messages = Table(  # why something failed, told to its user; aged out
    "volume_messages",
    metadata,
    Column("id", ID, primary_key=True),
    Column("project_id", String(64), nullable=False, index=True),
    Column("request_id", String(64), nullable=False),
    Column("resource_type", String(32), nullable=False),  # VOLUME VOLUME_SNAPSHOT VOLUME_BACKUP
    Column("resource_id", ID),
    Column("event_id", String(64), nullable=False),
    Column("level", String(16), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False, index=True),
)
backups = Table(
    "backups",
    metadata,
    *_owned(),
    Column("volume_id", ID, nullable=False, index=True),
    Column("snapshot_id", ID),  # of which it was made
    Column("parent_id", ID, index=True),  # the one that it continues; None: it is whole
    Column("status", String(32), nullable=False),
    Column("size_gb", Integer, nullable=False),
    Column("host", String(255)),  # whose backup service made it
    Column("container", String(255)),
    Column("object_count", Integer, nullable=False, default=0),
    Column("stored_bytes", BigInteger, nullable=False, default=0),
    Column("zone", String(255)),
    Column("metadata", Json, nullable=False),
    Column("fault", Text, nullable=False, default=""),
    Column("data_at_us", BigInteger),
    Column("fence", Integer, nullable=False, default=0),
    Index("ix_backups_project", "project_id", "created_at_us"),
)
volume_placements = Table(  # each choice of a backend with its reasons; aged out
    "volume_placements",
    metadata,
    Column("id", LONG_ID, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("volume_id", ID, nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("backend", String(255)),  # the one chosen; None: none was found
    Column("body", Json, nullable=False),
    Index("ix_volume_placements_volume", "volume_id", "id"),
)
