"""An initramfs archive (cpio, format newc) written without root: device nodes and owners are only numbers in it."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path


class Archive:
    """Collects entries; parents must be added before their children, as the kernel unpacks in order."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._inode = 0

    def directory(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, is_executable: bool = False) -> None:
        self._entry(name, stat.S_IFREG | (0o755 if is_executable else 0o644), content)

    def symlink(self, name: str, target: str) -> None:
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def write(self, path: Path) -> None:
        self._inode = -1  # the trailer's inode is 0
        self._entry("TRAILER!!!", 0, b"")
        path.write_bytes(gzip.compress(bytes(self._out), 6, mtime=0))

    def _entry(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        links, owner, mtime, checksum = 1, 0, 0, 0
        fields = (self._inode, mode, owner, owner, links, mtime, len(content), 0, 0, *device, len(encoded), checksum)
        self._out += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self._pad()
        self._out += content
        self._pad()

    def _pad(self) -> None:
        self._out += bytes(-len(self._out) % 4)
