"""What a host sends of an image goes no faster than is good for its guests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from droveway.drivers.images import http as http_driver
from tests.drivers.test_http_images import driver


def test_what_is_sent_leaves_the_host_to_its_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_driver, "SENT_BYTES_A_S", 4 * http_driver.PIECE_BYTES)
    (tmp_path / "source").write_bytes(bytes(2 * http_driver.PIECE_BYTES))
    with driver() as images, (tmp_path / "source").open("rb") as file:
        began_s = time.monotonic()
        assert sum(map(len, images._paced(file))) == 2 * http_driver.PIECE_BYTES
        assert time.monotonic() - began_s > 0.45, "half a second's worth of it"
        images.close()
        file.seek(0)
        with pytest.raises(ConnectionAbortedError):
            list(images._paced(file))
