"""A call on its way in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from lab.hosts import LabFailed
from lab.image import ImageFailed
from lab.nodes import ServerFailed

TASK_S = 20 * 60.0  # an image that is built from packages still to be fetched


class Task:
    def __init__(self, call: Callable[[], Path | None]) -> None:
        self._failure: Exception | None = None
        self._result: Path | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), name=call.__name__.strip("_"), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Path | None]) -> None:
        try:
            self._result = call()
        except (ImageFailed, LabFailed, ServerFailed, OSError) as failure:
            self._failure = failure

    def result(self, may_fail: bool = False) -> Path | None:
        """What it gave. Raises what it raised, unless it may fail."""
        self._thread.join(TASK_S)
        if self._thread.is_alive():
            raise LabFailed(f"{self._thread.name} has not ended within {TASK_S / 60:.0f} minutes")
        if self._failure is not None and not may_fail:
            raise self._failure
        return self._result
