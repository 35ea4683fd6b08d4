"""The lab's hosts, brought up once for all that asks libvirt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from droveway.domain.model import ImageRef


@pytest.fixture(scope="session")
def lab_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ImageRef]]:
    from lab.hosts import Lab, obstacle
    from lab.image import CACHE, image

    reason = obstacle()
    if reason is not None:
        pytest.skip(f"no lab hosts here: {reason}")
    lab = Lab(tmp_path_factory.mktemp("hypervisor"), cache=CACHE)
    path = image()
    data = path.read_bytes()
    try:
        lab.up(2)
        lab.warm()
        yield lab, ImageRef("tiny", "qcow2", len(data), hashlib.sha512(data).hexdigest(), str(path))
    finally:
        lab.down()
