"""A driver is imported where it is chosen: an agent carries no library of a bus that its file does not name."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load(start: str) -> Any:
    """What MODULE:FUNCTION names, such as the `start` of a line of config/drivers.py."""
    module, _, name = start.partition(":")
    return getattr(import_module(module), name)
