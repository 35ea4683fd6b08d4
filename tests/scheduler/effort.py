"""How many examples a property is tried on: a third of them unless `--full` is said. They are others in each run."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

SHARE = 1 if "DROVEWAY_TESTS_FULL" in os.environ else 3


def effort(*, max_examples: int, **more: Any) -> settings:
    return settings(max_examples=max_examples // SHARE, deadline=None, **more)
