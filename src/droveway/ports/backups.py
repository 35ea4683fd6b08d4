"""Where backups lie: a store of objects by name.

Guarantees every driver gives (tests/drivers/test_backups_contract.py holds them):
- what `put` has returned is there, whole, whatever ends then; what was cut off is not there;
- an object is what was put last, and everybody sees it at once;
- names are of letters, digits, `-` and `/`; `names` gives all that begin so, in no order;
- no call blocks the event loop, and each ends in time: BackupsDown when the store does not answer, BackupsRefused with
  its own no.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from droveway.domain.faults import Fault


class BackupsRefused(Fault):
    """The store of backups said no."""


class BackupsDown(Fault):
    """The store of backups did not answer."""


class BackupObjects(Protocol):
    async def get(self, name: str) -> bytes | None: ...
    async def put(self, name: str, data: bytes) -> None: ...
    async def exists(self, name: str) -> bool: ...
    async def delete(self, name: str) -> None:
        """What is gone is deleted already."""
        ...

    def names(self, prefix: str) -> AsyncIterator[str]: ...

    async def close(self) -> None: ...
