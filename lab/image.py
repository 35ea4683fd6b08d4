"""The tiny guest image: built once from distribution packages, without root, loop device or mount.

Everything runs from the initramfs; the disk is there to be booted from by a BIOS (MBR, a FAT partition, syslinux), and
holds the SSH server, an archive that is a partition of its own and is unpacked after BOOTED.
What decides the boot time, measured under TCG with 128 MiB (medians, power on to BOOTED 1.9 s):
- the kernel's self-tests, address randomisation and mitigations cost 0.35 s: switched off on the command line;
- a compressed qcow2 costs 1.0 s more in the BIOS: it is stored plain;
- modules (power button, disk, network, config drive) are loaded after BOOTED.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.initramfs import Archive

SOURCES = Path(__file__).parent / "guest"
CACHE = Path(__file__).parent.parent / ".droveway" / "cache"
KERNEL_META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual")
MASTER_BOOT_RECORDS = ("/usr/lib/SYSLINUX/mbr.bin", "/usr/lib/syslinux/mbr/mbr.bin")
COMMAND_LINE = "console=ttyS0 quiet panic=1 cryptomgr.notests nokaslr mitigations=off"
# In the order of their dependencies; one that the kernel has built in is left out.
MODULES = (
    "drivers/acpi/button",
    "drivers/input/evdev",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/cdrom/cdrom",
    "fs/isofs/isofs",
)
PROGRAMS = {
    "init": "init",
    "bin/configure": "configure",
    "bin/leased": "leased",
    "bin/sshd": "sshd",
    "etc/acpi/PWRF/00000080": "power-button",
}
COMPILED = ("tick", "beacon")
# Root logs in by a key alone.
ACCOUNTS = {
    "etc/profile": "PS1='\\u@\\h:\\w\\$ '\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/shells": "/bin/sh\n",
}

SECTOR_BYTES = 512
PARTITION_START_SECTOR = 2048
FAT16_LBA, LINUX = 0x0E, 0x83
SSH_SERVER, SSH_KEY_MAKER = "dropbear", "dropbearkey"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageFailed(Exception):
    """The guest image could not be built; the message says which tool and why."""


def image(cache: Path = CACHE) -> Path:
    """The bootable qcow2, built now if it is not there yet. Safe to call from several processes at once."""
    wanted = cache / f"tiny-{_key()}.qcow2"
    if wanted.exists():
        return wanted
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        if not wanted.exists():
            for left in cache.glob(".building-*"):  # of a build that was interrupted: its lock is ours now
                shutil.rmtree(left, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
            try:
                _build(work, _kernel(cache, work)).rename(wanted)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return wanted


def _key() -> str:
    """Names the image by what it is made from: this recipe and the guest's sources."""
    digest = hashlib.sha256()
    here = Path(__file__)
    for path in (here, here.with_name("initramfs.py"), *sorted(SOURCES.iterdir())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# -- the kernel, from the distribution's package ------------------------------------------------------------------
def _kernel(cache: Path, work: Path) -> Path:
    """A directory with `vmlinuz` and `modules/`, kept in the cache because it is a download of 26 MB."""
    kept = cache / f"kernel-{hashlib.sha256(' '.join(MODULES).encode()).hexdigest()[:8]}"
    if kept.is_dir():
        return kept
    made = work / "kernel"
    (made / "modules").mkdir(parents=True)
    version = _kernel_version()
    _download(f"linux-image-{version}", work, made)
    if not (made / "vmlinuz").exists():
        raise ImageFailed("the kernel package holds no boot/vmlinuz-*")
    if not any((made / "modules").iterdir()):
        _download(f"linux-modules-{version}", work, made)  # apart, on Ubuntu
    made.rename(kept)
    return kept


def _download(package: str, work: Path, made: Path) -> None:
    into = Path(tempfile.mkdtemp(dir=work))
    _run("apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", package, cwd=into, timeout_s=300)
    for deb in into.glob("*.deb"):
        _take_from(deb, made)


def _take_from(deb: Path, made: Path) -> None:
    """The kernel and the modules that are needed, as they come by: unpacking all of a package takes three seconds."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as reading,
        tarfile.open(fileobj=reading.stdout, mode="r|") as archive,
    ):
        for member in archive:
            kernel = re.search(r"/boot/vmlinuz-", member.name)
            module = re.search(r"/lib/modules/[^/]*/kernel/(.*)\.ko(\.\w+)?$", member.name)
            if kernel is None and (module is None or module[1] not in MODULES):
                continue
            content = archive.extractfile(member)
            if content is not None and kernel is not None:
                (made / "vmlinuz").write_bytes(content.read())
            elif content is not None and module is not None:
                (made / "modules" / f"{Path(module[1]).name}.ko").write_bytes(_plain_module(content.read(), module[2]))
    if reading.returncode:
        raise ImageFailed(f"dpkg-deb cannot read {deb.name}: exit code {reading.returncode}")


def _kernel_version() -> str:
    """Of the newest small kernel, as packages of it are named."""
    for attempt in ("as it is", "after an update"):
        if attempt == "after an update":
            _run("apt-get", "-o", "DPkg::Lock::Timeout=600", "-q", "update", timeout_s=600)
        for meta in KERNEL_META_PACKAGES:
            found = re.search(r"Depends: linux-image-(\d\S*)", _run("apt-cache", "depends", meta, may_fail=True))
            if found:
                return found[1]
    raise ImageFailed(f"none of the packages {', '.join(KERNEL_META_PACKAGES)} is known to apt")


def _plain_module(content: bytes, suffix: str | None) -> bytes:
    if suffix == ".xz":
        return lzma.decompress(content)
    if suffix == ".zst":
        return subprocess.run(["zstd", "-dcq"], input=content, check=True, capture_output=True, timeout=30).stdout
    return content


# -- the image ----------------------------------------------------------------------------------------------------
def _build(work: Path, kernel: Path) -> Path:
    for name in COMPILED:
        _run("gcc", "-O2", "-static", "-s", "-o", str(work / name), str(SOURCES / f"{name}.c"))
    initrd = work / "initrd"
    _initramfs(kernel, work).write(initrd)
    disk = work / "disk"
    _disk(work, disk, [kernel / "vmlinuz", initrd], _ssh_server(work))
    made = work / "tiny.qcow2"
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(made))
    return made


def _initramfs(kernel: Path, compiled: Path) -> Archive:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise ImageFailed("busybox is not installed: the guest image needs the package busybox-static")
    archive = Archive()
    for name in ("bin", "dev", "proc", "root", "etc", "etc/acpi", "etc/acpi/PWRF", "modules"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3)
    archive.file("bin/busybox", Path(busybox).read_bytes(), is_executable=True)
    for applet in _run(busybox, "--list").split():
        if applet != "busybox":
            archive.symlink(f"bin/{applet}", "busybox")
    for path, text in ACCOUNTS.items():
        archive.file(path, text.encode())
    for name in COMPILED:
        archive.file(f"bin/{name}", (compiled / name).read_bytes(), is_executable=True)
    for path, name in PROGRAMS.items():
        archive.file(path, (SOURCES / name).read_bytes(), is_executable=True)
    present = [Path(name).name for name in MODULES if (kernel / "modules" / f"{Path(name).name}.ko").exists()]
    archive.file("modules/order", "".join(f"{name}\n" for name in present).encode())
    for name in present:
        archive.file(f"modules/{name}.ko", (kernel / "modules" / f"{name}.ko").read_bytes())
    return archive


def _ssh_server(work: Path) -> Path:
    """An archive of its program, the libraries that it is linked with as this machine has them, and a host key."""
    found = {"usr/sbin/dropbear": _ssh_program(SSH_SERVER), "etc/host_key": work / "host_key"}
    libraries = re.findall(r"(/\S+) \(0x", _run("ldd", str(found["usr/sbin/dropbear"])))
    found |= {library.lstrip("/"): Path(library) for library in libraries}
    _run(str(_ssh_program(SSH_KEY_MAKER)), "-t", "ed25519", "-f", str(found["etc/host_key"]))
    made = work / "sshd.tar"
    with tarfile.open(made, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, path in sorted(found.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o600 if name == "etc/host_key" else 0o755
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return made


def _ssh_program(name: str) -> Path:
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise ImageFailed(f"{name} is not installed: the guest image needs the package dropbear-bin")
    return Path(path)


def _disk(work: Path, disk: Path, files: list[Path], archive: Path) -> None:
    """Two partitions, just large enough: a bootable FAT, and the archive itself. `disk@@offset` is how mtools names a
    partition in a file."""
    mebibytes = sum(path.stat().st_size for path in files) // 2**20 + 2
    sectors = mebibytes * 2**20 // SECTOR_BYTES
    end_sector = PARTITION_START_SECTOR + sectors
    archive_sectors = archive.stat().st_size // SECTOR_BYTES
    offset = PARTITION_START_SECTOR * SECTOR_BYTES
    partition = f"{disk}@@{offset}"
    settings = work / "syslinux.cfg"
    settings.write_text(
        f"DEFAULT tiny\nPROMPT 0\nTIMEOUT 0\nLABEL tiny\nKERNEL vmlinuz\nINITRD initrd\nAPPEND {COMMAND_LINE}\n"
    )
    with disk.open("wb") as out:
        out.truncate(end_sector * SECTOR_BYTES)
        entries = _partition(0x80, FAT16_LBA, PARTITION_START_SECTOR, sectors)
        entries += _partition(0, LINUX, end_sector, archive_sectors)
        out.write(_boot_code() + entries.ljust(64, b"\0") + b"\x55\xaa")
        out.seek(end_sector * SECTOR_BYTES)
        out.write(archive.read_bytes())
    geometry = ("-T", str(sectors), "-H", str(PARTITION_START_SECTOR), "-h", "16", "-s", "63", "-c", "4")
    _run("mformat", "-i", partition, *geometry, "-v", "BOOT", "::")
    for path in (*files, settings):
        _run("mcopy", "-i", partition, str(path), f"::{path.name}")
    _run("syslinux", "--install", "--offset", str(offset), str(disk))


def _partition(flag: int, kind: int, first: int, sectors: int) -> bytes:
    return struct.pack("<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, sectors)


def _boot_code() -> bytes:
    for path in MASTER_BOOT_RECORDS:
        if Path(path).exists():
            return Path(path).read_bytes()[:446].ljust(446, b"\0")
    raise ImageFailed("no mbr.bin of syslinux: the guest image needs the package syslinux-common")


def _run(*command: str, cwd: Path | None = None, timeout_s: float = 60, may_fail: bool = False) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise ImageFailed(f"{command[0]} is not installed: the guest image cannot be built") from None
    except subprocess.TimeoutExpired:
        raise ImageFailed(f"{command[0]} did not end within {timeout_s:.0f} s") from None
    if done.returncode and not may_fail:
        raise ImageFailed(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(image(Path(os.environ.get("DROVEWAY_CACHE", CACHE))))
    except ImageFailed as failure:
        sys.exit(f"lab image: {failure}")
