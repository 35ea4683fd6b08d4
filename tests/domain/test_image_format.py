"""What a file may be when it says that it is an image."""

from __future__ import annotations

import struct

import pytest

from droveway.domain.faults import BadRequest
from droveway.domain.image_format import guess, inspect

CLUSTER = 65536
LIMIT = 1 << 40


def qcow2(
    *,
    version: int = 3,
    backing: int = 0,
    crypt: int = 0,
    virtual: int = 1 << 30,
    incompatible: int = 0,
    l1_size: int = 2,
    l1_at: int = 3 * CLUSTER,
    cluster_bits: int = 16,
    extensions: bytes = b"\0" * 8,
    header_bytes: int = 104,
) -> bytes:
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        backing,
        0,
        cluster_bits,
        virtual,
        crypt,
        l1_size,
        l1_at,
        CLUSTER,
        1,
        0,
        0,
    )
    if version == 3:
        head += struct.pack(">QQQII", incompatible, 0, 0, 4, header_bytes)
    return head + extensions


GOOD_BYTES = 4 * CLUSTER


def test_a_plain_qcow2_tells_its_virtual_size() -> None:
    for version in (2, 3):
        assert inspect("qcow2", qcow2(version=version), GOOD_BYTES, LIMIT).virtual_size_bytes == 1 << 30


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (qcow2(backing=512), "backing file"),
        (qcow2(incompatible=4), "external file"),
        (qcow2(extensions=struct.pack(">II", 0x44415441, 8) + b"/etc/xyz"), "external file"),
        (qcow2(extensions=struct.pack(">II", 1, 3) + b"\0" * 8 + struct.pack(">II", 0x44415441, 8)), "external file"),
        (qcow2(incompatible=2), "corrupt"),
        (qcow2(incompatible=1 << 40), "not known"),
        (qcow2(crypt=1), "encrypted"),
        (qcow2(version=1), "version 1"),
        (qcow2(virtual=0), "no bytes"),
        (qcow2(virtual=1 << 50, l1_size=1 << 21), "cut short"),
        (qcow2(virtual=1 << 33), "too small"),
        (qcow2(cluster_bits=40), "damaged"),
        (qcow2(l1_at=100 * CLUSTER), "cut short"),
        (qcow2(header_bytes=50), "damaged"),
        (qcow2()[:40], "cut short"),
        (qcow2()[:80], "cut short"),
        (b"", "not one"),
        (b"x" * 4096, "not one"),
        (b"KDMV" + b"\0" * 500, "vmdk"),
    ],
)
def test_a_qcow2_that_no_host_may_open_is_refused_with_the_reason(head: bytes, word: str) -> None:
    with pytest.raises(BadRequest, match=word) as caught:
        inspect("qcow2", head, GOOD_BYTES, LIMIT)
    assert caught.value.reason.endswith(".")


def test_a_disk_larger_than_the_bound_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most"):
        inspect("qcow2", qcow2(), GOOD_BYTES, 1 << 29)
    with pytest.raises(BadRequest, match="at most"):
        inspect("raw", b"abc", 1 << 30, 1 << 29)


@pytest.mark.parametrize(
    "head", [qcow2(), b"KDMV", b"vhdxfile", b"QED\0", b"\x1f\x8b\x08", b"LUKS\xba\xbe", b"\xfd7zXZ\0"]
)
def test_a_raw_disk_that_begins_like_another_format_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest, match="declared raw"):
        inspect("raw", head, 4096, LIMIT)
    assert guess(head) is not None


def test_raw_and_unknown_formats() -> None:
    assert inspect("raw", b"\xeb\x63\x90", 1000, LIMIT).virtual_size_bytes == 1000
    with pytest.raises(BadRequest, match="empty"):
        inspect("raw", b"", 0, LIMIT)
    with pytest.raises(BadRequest, match="vmdk"):
        inspect("vmdk", b"KDMV", 4, LIMIT)
