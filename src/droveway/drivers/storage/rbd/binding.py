"""Ceph's own bindings for Python. They come with the system's packages, for the system's own Python: another Python of
the same version can load them from there, one of another version cannot."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")


class Binding(NamedTuple):
    rados: Any
    rbd: Any


def load() -> Binding | None:
    """None where they are not to be had."""
    found = [_module(name) for name in ("rados", "rbd")]
    return None if None in found else Binding(*found)


def _module(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    path = SYSTEM_PACKAGES / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.exists() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # rbd imports rados
    try:
        spec.loader.exec_module(module)
    except ImportError:
        del sys.modules[name]
        return None
    return module
