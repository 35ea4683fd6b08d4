"""The image of `./dev up` after an upgrade: that of an older release keeps its servers and loses its name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lab.client import Client

BYTES = b"an image"
SHA512 = hashlib.sha512(BYTES).hexdigest()


def image(number: int, **more: Any) -> dict[str, Any]:
    found = {"id": str(number), "status": "active", "os_hash_value": SHA512, "created_at": "2026-11-30T01:02:03Z"}
    return found | more


class Told(Client):
    """Has these images, and keeps what else it is told."""

    def __init__(self, *images: dict[str, Any]) -> None:
        super().__init__(0)
        self.images, self.said = images, []  # type: ignore[var-annotated]

    def _checked(self, method: str, path: str, body: Any, wanted: int | None = None) -> tuple[int, Any, Any]:
        if method != "GET":
            self.said.append((method, path, body))
        return wanted or 200, {}, {"images": list(self.images)}


@pytest.mark.parametrize(
    ("images", "has_it", "said"),
    [
        ((), False, []),
        ((image(1),), True, []),
        ((image(1, status="saving"),), False, [("DELETE", "/image/v2/images/1", None)]),
        (
            (image(1, os_hash_value="another"),),
            False,
            [("PATCH", "/image/v2/images/1", [{"op": "replace", "path": "/name", "value": "tiny-2026-11-30"}])],
        ),
    ],
)
def test_an_image_of_other_bytes_gets_another_name(
    tmp_path: Path, images: tuple[dict[str, Any], ...], has_it: bool, said: list[object]
) -> None:
    path = tmp_path / "tiny.qcow2"
    path.write_bytes(BYTES)
    client = Told(*images)
    assert (client.has_image("tiny", path), client.said) == (has_it, said)


def test_without_a_file_any_will_do() -> None:
    client = Told(image(1, os_hash_value="another"))
    assert (client.has_image("tiny"), client.said) == (True, [])
