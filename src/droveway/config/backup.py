"""[backup]: where the backups of volumes lie; the same in the files of all that have a volume or backup service."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec


class BackupConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str = ""  # a directory that every host has which makes or restores backups; or
    s3_url: str = ""  # of a server that speaks S3, such as https://s3.example:7480
    s3_bucket: str = ""  # which is there already
    s3_access_key: str = ""  # of a user who may read and write that bucket
    s3_secret_key: str = ""  # of that user
    s3_region: str = "us-east-1"  # as that server calls it


def problems(backup: BackupConfig) -> list[str]:
    """Every sentence that is wrong with it beyond its types."""
    if backup.path and backup.s3_url:
        return ["[backup]: path and s3_url are both there; backups lie in one store"]
    if not backup.s3_url:
        return []
    found = []
    if urlsplit(backup.s3_url).scheme not in ("http", "https"):
        found.append(f"backup.s3_url = {backup.s3_url[:128]!r} must be http:// or https://, such as https://s3.example")
    keys = ("s3_bucket", "s3_access_key", "s3_secret_key")
    return found + [f"backup.{key} is missing; s3_url needs it" for key in keys if not getattr(backup, key)]
