"""Backups as files of a directory, which every host has that makes or restores them."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from droveway.ports.backups import BackupsDown, BackupsRefused

T = TypeVar("T")
WORKERS = 4
_SHARD = 2  # letters of a name by which a directory is split


class DirectoryBackups:
    """Answers droveway.ports.backups.BackupObjects."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pool = ThreadPoolExecutor(WORKERS, "backups")

    def _path(self, name: str) -> Path:
        kind, _, own = name.partition("/")
        return self._root / kind / own[:_SHARD] / own if own else self._root / kind

    async def get(self, name: str) -> bytes | None:
        def work() -> bytes | None:
            try:
                return self._path(name).read_bytes()
            except FileNotFoundError:
                return None

        return await self._run(work)

    async def put(self, name: str, data: bytes) -> None:
        def work() -> None:
            path = self._path(name)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, unfinished = tempfile.mkstemp(prefix=".new-", dir=path.parent)
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(unfinished, path)
            except OSError:
                os.unlink(unfinished)
                raise
            _sync(path.parent)

        await self._run(work)

    async def exists(self, name: str) -> bool:
        return await self._run(self._path(name).exists)

    async def delete(self, name: str) -> None:
        await self._run(lambda: self._path(name).unlink(missing_ok=True))

    async def names(self, prefix: str) -> AsyncIterator[str]:
        kind = prefix.partition("/")[0]
        directory = self._root / kind

        def shards() -> list[str]:
            return sorted(os.listdir(directory)) if directory.exists() else []

        for shard in await self._run(shards):
            for own in await self._run(lambda shard=shard: os.listdir(directory / shard)):  # type: ignore[misc]
                name = f"{kind}/{own}"
                if not own.startswith(".new-") and name.startswith(prefix):
                    yield name

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        def refusing() -> T:
            if not self._root.is_dir():
                raise BackupsDown(f"The directory of backups {self._root} is not there: see that it is mounted.")
            try:
                return work()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise BackupsRefused(f"There is no room left for backups at {self._root}.") from None
                raise BackupsDown(f"The directory of backups {self._root} does not work: {error.strerror}.") from None

        return asyncio.get_running_loop().run_in_executor(self._pool, refusing)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
