"""The store of backups that a configuration names, and the command that verifies what lies in it."""

from __future__ import annotations

from droveway.config.backup import BackupConfig
from droveway.domain.faults import NotFound
from droveway.drivers.clock import SystemClock
from droveway.ports.backups import BackupObjects


def objects(backup: BackupConfig) -> BackupObjects | None:
    """None where it names none."""
    if backup.path:
        from pathlib import Path

        from droveway.drivers.backups.directory import DirectoryBackups

        return DirectoryBackups(Path(backup.path))
    if backup.s3_url:
        from droveway.drivers.backups.s3 import S3Backups, S3Settings

        keys = (backup.s3_access_key, backup.s3_secret_key, backup.s3_region)
        return S3Backups(S3Settings(backup.s3_url, backup.s3_bucket, *keys), SystemClock())
    return None


async def verify(backup: BackupConfig, backup_ids: tuple[str, ...]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Of each of them, or of all: how many chunks it has, and a sentence for each that is damaged."""
    from droveway.agents.backup_chunks import BackupChunks

    found = objects(backup)
    if found is None:
        raise NotFound("The configuration names no store of backups: [backup] has neither path nor s3_url.")
    chunks = BackupChunks(found, SystemClock(), "verify")
    try:
        wanted = backup_ids or tuple(sorted([name.partition("/")[2] async for name in found.names("backups/")]))
        return {backup_id: await chunks.verify(backup_id) for backup_id in wanted}
    finally:
        await found.close()
