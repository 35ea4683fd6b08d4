"""Backups as objects of a bucket, on any server that speaks S3 (Ceph's gateway among them). It needs boto3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from droveway.ports.backups import BackupsDown, BackupsRefused

T = TypeVar("T")
WORKERS = 8
ANSWERS_WITHIN_S = 20
_MISSING = ("404", "NoSuchKey", "NotFound")


class S3Settings(msgspec.Struct, frozen=True):
    """Of the server and its bucket, which is there already."""

    url: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"


class S3Backups:
    """Answers droveway.ports.backups.BackupObjects."""

    def __init__(self, settings: S3Settings) -> None:
        try:
            import boto3
            import botocore.client
            import botocore.exceptions
        except ImportError:
            raise BackupsRefused("Backups in S3 need boto3: install droveway[s3].") from None
        self._settings = settings
        self._errors = botocore.exceptions
        self._pool = ThreadPoolExecutor(WORKERS, "backups")
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.url,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            region_name=settings.region,
            config=botocore.client.Config(
                connect_timeout=ANSWERS_WITHIN_S / 4,
                read_timeout=ANSWERS_WITHIN_S,
                retries={"max_attempts": 2, "mode": "standard"},
                max_pool_connections=WORKERS,
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    async def get(self, name: str) -> bytes | None:
        def work() -> bytes | None:
            found = self._maybe(lambda: self._client.get_object(Bucket=self._settings.bucket, Key=name))
            return None if found is None else bytes(found["Body"].read())

        return await self._run(work)

    async def put(self, name: str, data: bytes) -> None:
        await self._run(lambda: self._client.put_object(Bucket=self._settings.bucket, Key=name, Body=data))

    async def exists(self, name: str) -> bool:
        def work() -> bool:
            return self._maybe(lambda: self._client.head_object(Bucket=self._settings.bucket, Key=name)) is not None

        return await self._run(work)

    async def delete(self, name: str) -> None:
        await self._run(lambda: self._client.delete_object(Bucket=self._settings.bucket, Key=name))

    async def names(self, prefix: str) -> AsyncIterator[str]:
        token = ""
        while True:
            page = await self._run(lambda token=token: self._page(prefix, token))  # type: ignore[misc]
            for one in page.get("Contents", ()):
                yield one["Key"]
            token = page.get("NextContinuationToken", "")
            if not token:
                return

    def _page(self, prefix: str, token: str) -> dict[str, Any]:
        more = {"ContinuationToken": token} if token else {}
        return dict(self._client.list_objects_v2(Bucket=self._settings.bucket, Prefix=prefix, **more))

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _maybe(self, work: Callable[[], T]) -> T | None:
        """None where there is no such object."""
        try:
            return work()
        except self._errors.ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        where = f"{self._settings.url}/{self._settings.bucket}"

        def refusing() -> T:
            try:
                return work()
            except self._errors.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                sentence = f"({error.response['Error'].get('Message') or error.response['Error'].get('Code')})"
                if status >= 500:
                    raise BackupsDown(f"The store of backups {where} does not work {sentence}.") from None
                raise BackupsRefused(f"The store of backups {where} refused {sentence}.") from None
            except self._errors.BotoCoreError as error:
                words = " ".join(str(error).split())[:200]
                raise BackupsDown(f"The store of backups {where} does not answer ({words}).") from None

        return asyncio.get_running_loop().run_in_executor(self._pool, refusing)
