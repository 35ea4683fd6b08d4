"""Images made by qemu-img, whole and spoiled: our verdict beside oslo.utils' inspector and qemu-img's own check."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from droveway.domain import qcow2_tables
from droveway.domain.faults import BadRequest
from droveway.domain.image_format import HEAD_BYTES, inspect
from tests.api.test_uploads import queued, status
from tests.api.world import in_world, put_data, sentence

inspectors = pytest.importorskip("oslo_utils.imageutils.format_inspector")
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
KIB = 1024
DATA_BYTES = 3 * 1024 * KIB
_L1_SIZE_AT, _L1_AT, _REFCOUNTS_AT, _SNAPSHOTS_AT, _FEATURES_AT, _BACKING_AT = 36, 40, 48, 60, 72, 8


def qemu_img(*arguments: str) -> int:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, timeout=60, check=False).returncode


def ours(path: Path) -> str:
    """ "" when it is accepted; otherwise the reason."""
    with path.open("rb") as file:
        head, size = file.read(HEAD_BYTES), path.stat().st_size
        try:
            inspect("qcow2", head, size, 1 << 50)
            qcow2_tables.check(head, size, lambda at, length: os.pread(file.fileno(), length, at))
        except BadRequest as fault:
            assert fault.sentence.endswith(".")
            return fault.sentence
    return ""


def oslos(path: Path) -> str:
    found = inspectors.detect_file_format(str(path))
    if str(found) != "qcow2":
        return f"it is {found}"
    try:
        found.safety_check()
    except inspectors.SafetyCheckFailed as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a hole, data that compresses, a hole at the end."""
    path = tmp_path_factory.mktemp("qcow2") / "raw"
    with path.open("wb") as file:
        file.write(os.urandom(DATA_BYTES))
        file.seek(DATA_BYTES + 512 * KIB)
        file.write(b"compressible " * (50 * KIB))
        file.truncate(32 * 1024 * KIB)
    return path


WHOLE = {
    "plain": [],
    "v2": ["-o", "compat=0.10"],
    "compressed": ["-c"],
    "compressed v2": ["-c", "-o", "compat=0.10,cluster_size=512"],
    "zstd": ["-c", "-o", "compression_type=zstd"],
    "small clusters": ["-o", "cluster_size=512"],
    "large clusters": ["-o", "cluster_size=2M"],
    "extended L2": ["-o", "extended_l2=on"],
    "preallocated": ["-o", "preallocation=metadata"],
    "lazy": ["-o", "lazy_refcounts=on"],
    "wide refcounts": ["-o", "refcount_bits=64"],
}


NOT_OF_OSLO = "extended L2"  # a feature that its inspector does not know


def made(raw: Path, path: Path, kind: str = "plain") -> Path:
    """A copy of the image of that kind, which is made once."""
    whole = raw.with_name(kind)
    if not whole.exists():
        assert qemu_img("convert", "-O", "qcow2", *WHOLE[kind], str(raw), str(whole)) == 0
    shutil.copyfile(whole, path)
    return path


@pytest.mark.parametrize("kind", WHOLE)
def test_what_qemu_img_makes_is_accepted(raw: Path, tmp_path: Path, kind: str) -> None:
    path = made(raw, tmp_path / "image", kind)
    assert ours(path) == ""
    assert (oslos(path) == "") == (kind != NOT_OF_OSLO)
    assert qemu_img("snapshot", "-c", "s", str(path)) == 0
    assert ours(path) == ""


def test_an_empty_disk_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "image"
    assert qemu_img("create", "-f", "qcow2", str(path), "900G") == 0
    assert (ours(path), oslos(path)) == ("", "")


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_was_cut_short_is_refused(raw: Path, tmp_path: Path, kind: str) -> None:
    """Which oslo.utils' inspector, reading the header alone, lets pass. By less than a cluster nobody can tell."""
    path = made(raw, tmp_path / "image", kind)
    whole = path.stat().st_size
    for share in (0.8, 0.5, 0.1):
        os.truncate(path, int(whole * share))
        assert "cut short" in ours(path), share
        assert qemu_img("check", str(path)) != 0


async def test_an_upload_that_was_cut_short_does_not_become_active(raw: Path, tmp_path: Path) -> None:
    path = made(raw, tmp_path / "image")
    whole = path.read_bytes()
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token, "qcow2")
        reply = await put_data(world, token, image_id, whole[: len(whole) * 9 // 10])
        assert (reply.status_code, "cut short" in sentence(reply)) == (400, True)
        assert await status(world, token, image_id) == "queued"
        assert (await put_data(world, token, image_id, whole)).status_code == 204


def number(path: Path, at: int, size: int = 8) -> int:
    return int.from_bytes(path.read_bytes()[at : at + size], "big")


def write(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


def _to(at: int) -> bytes:
    return struct.pack(">Q", at | 1 << 63)


def _first_l2(path: Path) -> int:
    return number(path, number(path, _L1_AT)) & ((1 << 56) - 512)


SPOILED: dict[str, Callable[[Path], None]] = {
    "L1 behind the end": lambda path: write(path, _L1_AT, struct.pack(">Q", 1 << 40)),
    "L1 of 2^31 entries": lambda path: write(path, _L1_SIZE_AT, struct.pack(">I", 1 << 31)),
    "L1 to behind the end": lambda path: write(path, number(path, _L1_AT), _to(1 << 40)),
    "L1 to no cluster": lambda path: write(path, number(path, _L1_AT), _to(65536 + 512)),
    "L2 to behind the end": lambda path: write(path, _first_l2(path), _to(1 << 40)),
    "L2 to no cluster": lambda path: write(path, _first_l2(path), _to(5 * 65536 + 1024)),
    "L2 compressed behind the end": lambda path: write(path, _first_l2(path), struct.pack(">Q", 1 << 62 | 1 << 40)),
    "refcounts behind the end": lambda path: write(path, _REFCOUNTS_AT, struct.pack(">Q", 1 << 40)),
    "refcount block behind the end": lambda path: write(path, number(path, _REFCOUNTS_AT), struct.pack(">Q", 1 << 40)),
    "snapshots behind the end": lambda path: write(path, _SNAPSHOTS_AT, struct.pack(">IQ", 1, 1 << 40)),
    "a backing file": lambda path: write(path, _BACKING_AT, struct.pack(">QI", 1024, 11)),
    "an external data file": lambda path: write(path, _FEATURES_AT, struct.pack(">Q", 4)),
    "unknown features": lambda path: write(path, _FEATURES_AT, struct.pack(">Q", 1 << 50)),
    "another format": lambda path: write(path, 0, b"KDMV"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_whatever_is_spoiled_is_refused(raw: Path, tmp_path: Path, kind: str) -> None:
    path = made(raw, tmp_path / "image")
    SPOILED[kind](path)
    assert ours(path) != ""


@pytest.mark.parametrize("kind", SPOILED)
def test_whatever_oslo_refuses_is_refused(raw: Path, tmp_path: Path, kind: str) -> None:
    path = made(raw, tmp_path / "image")
    SPOILED[kind](path)
    if oslos(path):
        assert ours(path), oslos(path)


def test_real_backing_and_data_files(raw: Path, tmp_path: Path) -> None:
    base, path = made(raw, tmp_path / "base"), tmp_path / "image"
    assert qemu_img("create", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(path)) == 0
    assert "backing" in ours(path)
    assert oslos(path)
    path.unlink()
    assert qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", str(path), "1M") == 0
    assert "external file" in ours(path)
    assert oslos(path)


def test_a_file_of_too_many_tables_is_not_read_for_ever(raw: Path, tmp_path: Path) -> None:
    path = made(raw, tmp_path / "image")
    entries = 2048
    with path.open("r+b") as file:
        at = file.seek(0, os.SEEK_END) // 65536 * 65536 + 65536
        file.seek(at)
        file.write(b"".join(_to(at + 65536 * (1 + n)) for n in range(entries)).ljust(65536, b"\0"))
        file.truncate(at + 65536 * (entries + 2))  # sparse: 2,049 tables of 8,192 entries
    write(path, _L1_SIZE_AT, struct.pack(">IQ", entries, at))
    write(path, 24, struct.pack(">Q", 1 << 40))
    write(path, at + 8 * entries, _to(at + 65536 * (entries + 1)))
    write(path, _L1_SIZE_AT, struct.pack(">I", entries + 1))
    assert "too many clusters" in ours(path)
