"""Block Storage's part of the table of routes (api/routes.py). Each call stands there twice: with the project of the
token in its path, and without."""

from __future__ import annotations

from droveway.api.http.router import Route
from droveway.api.volume import (
    attachments,
    backups,
    default_types,
    manage,
    messages,
    metadata,
    pools,
    qos,
    quotas,
    services,
    snapshots,
    transfers,
    types,
    unbuilt,
    volume_actions,
    volume_create,
    volumes,
)
from droveway.api.volume.here import routes as volume
from droveway.domain.policy import Need

READER, MEMBER, ADMIN = Need.READER, Need.MEMBER, Need.ADMIN


def _metadata(of: str, calls: metadata.Calls) -> tuple[Route, ...]:
    """The calls of what a user writes on a volume or a snapshot."""
    here = f"{of}/metadata"
    return (
        *volume("GET", here, calls.listing, READER),
        *volume("POST", here, calls.extend, MEMBER),
        *volume("PUT", here, calls.replace, MEMBER),
        *volume("GET", here + "/{key}", calls.show, READER),
        *volume("PUT", here + "/{key}", calls.set_item, MEMBER),
        *volume("DELETE", here + "/{key}", calls.remove, MEMBER),
    )


def _transfers(here: str, since: int) -> tuple[Route, ...]:
    """The calls of transfers, under either of their names."""
    return (
        *volume("GET", here, transfers.summaries, READER, since),
        *volume("POST", here, transfers.create, MEMBER, since),
        *volume("GET", here + "/detail", transfers.detail, READER, since),
        *volume("GET", here + "/{transfer_id}", transfers.show, READER, since),
        *volume("DELETE", here + "/{transfer_id}", transfers.delete, MEMBER, since),
        *volume("POST", here + "/{transfer_id}/accept", transfers.accept, MEMBER, since),
    )


# fmt: off
VOLUME_ROUTES: tuple[Route, ...] = (
    *volume("GET",    "volumes", volumes.names, READER),
    *volume("POST",   "volumes", volume_create.create_old, MEMBER, 0, 52),
    *volume("POST",   "volumes", volume_create.create, MEMBER, 53),
    *volume("GET",    "volumes/detail", volumes.detail, READER),
    *volume("GET",    "volumes/summary", volumes.summary, READER, 12),
    *volume("GET",    "volumes/{volume_id}", volumes.show, READER),
    *volume("PUT",    "volumes/{volume_id}", volumes.update, MEMBER),
    *volume("DELETE", "volumes/{volume_id}", volumes.delete, MEMBER),
    *volume("GET",    "volumes/{volume_id}/encryption", volumes.show_encryption, READER),
    *volume("POST",   "volumes/{volume_id}/action", volume_actions.action, READER),
    *_metadata("volumes/{volume_id}", metadata.OF_VOLUMES),
    *volume("GET",    "snapshots", snapshots.summaries, READER),
    *volume("POST",   "snapshots", snapshots.create, MEMBER),
    *volume("GET",    "snapshots/detail", snapshots.detail, READER),
    *volume("GET",    "snapshots/{snapshot_id}", snapshots.show, READER),
    *volume("PUT",    "snapshots/{snapshot_id}", snapshots.update, MEMBER),
    *volume("DELETE", "snapshots/{snapshot_id}", snapshots.delete, MEMBER),
    *volume("POST",   "snapshots/{snapshot_id}/action", snapshots.action, MEMBER),
    *_metadata("snapshots/{snapshot_id}", metadata.OF_SNAPSHOTS),
    *volume("GET",    "attachments", attachments.summaries, READER, 27),
    *volume("POST",   "attachments", attachments.create, MEMBER, 27),
    *volume("GET",    "attachments/detail", attachments.detail, READER, 27),
    *volume("GET",    "attachments/{attachment_id}", attachments.show, READER, 27),
    *volume("PUT",    "attachments/{attachment_id}", attachments.update, MEMBER, 27),
    *volume("DELETE", "attachments/{attachment_id}", attachments.delete, MEMBER, 27),
    *volume("POST",   "attachments/{attachment_id}/action", attachments.action, MEMBER, 27),
    *_transfers("os-volume-transfer", 0),
    *_transfers("volume-transfers", 55),
    *volume("GET",    "types", types.listing_, READER),
    *volume("POST",   "types", types.create, ADMIN),
    *volume("GET",    "types/{type_id}", types.show, READER),
    *volume("PUT",    "types/{type_id}", types.update, ADMIN),
    *volume("DELETE", "types/{type_id}", types.delete, ADMIN),
    *volume("POST",   "types/{type_id}/action", types.action, ADMIN),
    *volume("GET",    "types/{type_id}/extra_specs", types.list_specs, READER),
    *volume("POST",   "types/{type_id}/extra_specs", types.add_specs, ADMIN),
    *volume("GET",    "types/{type_id}/extra_specs/{key}", types.show_spec, READER),
    *volume("PUT",    "types/{type_id}/extra_specs/{key}", types.set_spec, ADMIN),
    *volume("DELETE", "types/{type_id}/extra_specs/{key}", types.remove_spec, ADMIN),
    *volume("GET",    "types/{type_id}/os-volume-type-access", types.list_access, ADMIN),
    *volume("GET",    "types/{type_id}/encryption", types.show_encryption, ADMIN),
    *volume("POST",   "types/{type_id}/encryption", types.refuse_encryption, ADMIN),
    *volume("GET",    "default-types", default_types.listing, ADMIN, 62),
    *volume("GET",    "default-types/{target}", default_types.show, ADMIN, 62),
    *volume("PUT",    "default-types/{target}", default_types.set_, ADMIN, 62),
    *volume("DELETE", "default-types/{target}", default_types.delete, ADMIN, 62),
    *volume("GET",    "qos-specs", qos.listing_, ADMIN),
    *volume("POST",   "qos-specs", qos.create, ADMIN),
    *volume("GET",    "qos-specs/{qos_id}", qos.show, ADMIN),
    *volume("PUT",    "qos-specs/{qos_id}", qos.update, ADMIN),
    *volume("DELETE", "qos-specs/{qos_id}", qos.delete, ADMIN),
    *volume("PUT",    "qos-specs/{qos_id}/delete_keys", qos.delete_keys, ADMIN),
    *volume("GET",    "qos-specs/{qos_id}/associations", qos.associations, ADMIN),
    *volume("GET",    "qos-specs/{qos_id}/associate", qos.associate, ADMIN),
    *volume("GET",    "qos-specs/{qos_id}/disassociate", qos.disassociate, ADMIN),
    *volume("GET",    "qos-specs/{qos_id}/disassociate_all", qos.disassociate_all, ADMIN),
    *volume("GET",    "backups", backups.names, READER),
    *volume("POST",   "backups", backups.create, MEMBER),
    *volume("GET",    "backups/detail", backups.detail, READER),
    *volume("POST",   "backups/import_record", backups.import_record, ADMIN),
    *volume("GET",    "backups/{backup_id}", backups.show, READER),
    *volume("PUT",    "backups/{backup_id}", backups.update, MEMBER, 9),
    *volume("DELETE", "backups/{backup_id}", backups.delete, MEMBER),
    *volume("POST",   "backups/{backup_id}/restore", backups.restore, MEMBER),
    *volume("GET",    "backups/{backup_id}/export_record", backups.export_record, ADMIN),
    *volume("POST",   "backups/{backup_id}/action", backups.action, ADMIN),
    *volume("GET",    "messages", messages.listing_, READER, 3),
    *volume("GET",    "messages/{message_id}", messages.show, READER, 3),
    *volume("DELETE", "messages/{message_id}", messages.delete, MEMBER, 3),
    *volume("GET",    "limits", quotas.limits, READER),
    *volume("GET",    "os-quota-sets/{target}", quotas.show, READER),
    *volume("PUT",    "os-quota-sets/{target}", quotas.update, ADMIN),
    *volume("DELETE", "os-quota-sets/{target}", quotas.delete, ADMIN),
    *volume("GET",    "os-quota-sets/{target}/defaults", quotas.defaults, READER),
    *volume("GET",    "os-quota-class-sets/{class}", quotas.show_class, ADMIN),
    *volume("PUT",    "os-quota-class-sets/{class}", quotas.update_class, ADMIN),
    *volume("GET",    "manageable_volumes", manage.list_volumes, ADMIN, 8),
    *volume("POST",   "manageable_volumes", manage.manage_volume, ADMIN, 8),
    *volume("GET",    "manageable_volumes/detail", manage.detail_volumes, ADMIN, 8),
    *volume("POST",   "os-volume-manage", manage.manage_volume, ADMIN),
    *volume("GET",    "os-volume-manage", manage.list_volumes, ADMIN, 8),
    *volume("GET",    "os-volume-manage/detail", manage.detail_volumes, ADMIN, 8),
    *volume("GET",    "manageable_snapshots", manage.list_snapshots, ADMIN, 8),
    *volume("POST",   "manageable_snapshots", manage.manage_snapshot, ADMIN, 8),
    *volume("GET",    "manageable_snapshots/detail", manage.detail_snapshots, ADMIN, 8),
    *volume("POST",   "os-snapshot-manage", manage.manage_snapshot, ADMIN),
    *volume("GET",    "os-snapshot-manage", manage.list_snapshots, ADMIN, 8),
    *volume("GET",    "os-snapshot-manage/detail", manage.detail_snapshots, ADMIN, 8),
    *volume("GET",    "scheduler-stats/get_pools", pools.get_pools, ADMIN),
    *volume("GET",    "capabilities/{host}", pools.capabilities, ADMIN),
    *volume("GET",    "os-services", services.listing, ADMIN),
    *volume("PUT",    "os-services/get-log", services.no_logs, ADMIN, 32),
    *volume("PUT",    "os-services/set-log", services.no_logs, ADMIN, 32),
    *volume("PUT",    "os-services/{action}", services.update, ADMIN),
    *volume("GET",    "os-hosts", services.hosts, ADMIN),
    *volume("GET",    "os-hosts/{host}", services.host, ADMIN),
    *volume("GET",    "os-availability-zone", services.zones, READER),
    *volume("GET",    "extensions", unbuilt.extensions, READER),
    *volume("GET",    "resource_filters", unbuilt.resource_filters, READER, 33),
    *(route for each in unbuilt.EMPTY
      for route in volume("GET", each.path, unbuilt.none_of(each.name), each.need, each.since)),
    *volume("POST",   "groups", unbuilt.refuse_group, MEMBER, 13),
    *volume("GET",    "groups/{group_id}", unbuilt.no_group, READER, 13),
)
# fmt: on
