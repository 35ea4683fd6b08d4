"""An imagined store of backups, in memory: `down` is why it does not answer, when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

from droveway.ports.backups import BackupsDown


class SimulatedBackups:
    """Answers droveway.ports.backups.BackupObjects. `puts_left`: until it goes down."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.down = ""
        self.puts_left = 1 << 62

    async def get(self, name: str) -> bytes | None:
        self._check()
        return self.objects.get(name)

    async def put(self, name: str, data: bytes) -> None:
        self.puts_left -= 1
        if self.puts_left < 0:
            self.down = self.down or "the store of backups does not answer"
        self._check()
        self.objects[name] = data

    async def exists(self, name: str) -> bool:
        self._check()
        return name in self.objects

    async def delete(self, name: str) -> None:
        self._check()
        self.objects.pop(name, None)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        self._check()
        for name in [one for one in self.objects if one.startswith(prefix)]:
            yield name

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.down:
            raise BackupsDown(self.down)
