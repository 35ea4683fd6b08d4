"""A machine whose kernel maps devices, for what needs thin volumes where this one's kernel does not: a guest under QEMU
without KVM, which has this machine's own files under it (virtiofs, and a layer in memory above) and runs one command.

Its kernel is Debian's cloud kernel, from `linux-image-cloud-amd64`; DROVEWAY_GUEST_KERNEL names a directory into which
that package was unpacked, where it is not installed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from lab.initramfs import Archive
from lab.processes import wait_for

ROOT = Path(os.environ.get("DROVEWAY_GUEST_KERNEL", "/"))
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
BUSYBOX = Path("/bin/busybox")
MEMORY_MIB = 2048
MODULES = (  # in the order of what they need
    *("drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_modern_dev"),
    *("drivers/virtio/virtio_pci_legacy_dev", "drivers/virtio/virtio_pci", "fs/fuse/fuse", "fs/fuse/virtiofs"),
    *("lib/libcrc32c", "fs/overlayfs/overlay", "drivers/block/loop", "drivers/md/dm-mod", "drivers/md/dm-bufio"),
    *("drivers/md/dm-bio-prison", "drivers/md/persistent-data/dm-persistent-data", "drivers/md/dm-thin-pool"),
    "drivers/md/dm-snapshot",  # LVM asks for it before it makes a snapshot of any kind
)
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
for module in MODULES; do $b insmod /modules/$module.ko || echo "$module cannot be loaded"; done
$b mount -t virtiofs root /lower; $b mount -t tmpfs -o size=60% tmp /upper; $b mkdir -p /upper/new /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/new,workdir=/upper/work over /root
for of in dev proc sys; do $b mount --move /$of /root/$of; done
for of in run tmp; do $b mount -t tmpfs tmp /root/$of; done
$b mkdir -p /root/dev/shm /root/run/lock/lvm; $b mount -t tmpfs tmp /root/dev/shm; $b ip link set lo up
$b chroot /root /bin/sh -c COMMAND
echo "ended with $?"
$b poweroff -f
"""


def obstacle() -> str:
    """Why there can be none here; empty when there can."""
    if os.geteuid() != 0:
        return "it shares this machine's files, which needs root"
    missing = [str(path) for path in (VIRTIOFSD, BUSYBOX) if not path.exists()]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install qemu-system-common busybox-static"
    return "" if _kernel() is not None else "its kernel is missing: apt-get install linux-image-cloud-amd64"


def _kernel() -> Path | None:
    return max((ROOT / "boot").glob("vmlinuz-*-cloud-amd64"), default=None)


def run(command: str, directory: Path, within_s: float) -> str:
    """What that command of a shell writes, inside; the last line says how it ended."""
    kernel = _kernel()
    assert kernel is not None, obstacle()
    _pack(kernel, command, directory / "initrd")
    socket = directory / "files"
    log = directory / "guest.log"
    shares = [str(VIRTIOFSD), f"--socket-path={socket}", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]
    with log.open("wb") as out, (directory / "virtiofsd.log").open("wb") as words:
        files = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *shares], stdout=words, stderr=words)
        try:
            assert wait_for(socket.exists, 10), "virtiofsd does not listen"
            guest = ["setpriv", "--pdeathsig", "KILL", *_qemu(kernel, directory / "initrd", socket)]
            subprocess.run(guest, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=within_s, check=False)
        finally:
            files.kill()
            files.wait()
    return log.read_text(errors="replace")


def _qemu(kernel: Path, initrd: Path, socket: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB)),
        *("-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on", "-numa", "node,memdev=memory"),
        *("-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 quiet loglevel=0 panic=-1 mitigations=off"),
        *("-chardev", f"socket,id=files,path={socket}", "-device", "vhost-user-fs-pci,chardev=files,tag=root"),
    ]


def _pack(kernel: Path, command: str, target: Path) -> None:
    modules = ROOT / "lib" / "modules" / kernel.name.removeprefix("vmlinuz-") / "kernel"
    names = " ".join(one.rpartition("/")[2] for one in MODULES)
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "modules", "lower", "upper", "root"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", BUSYBOX.read_bytes(), is_executable=True)
    for one in MODULES:
        archive.file(f"modules/{one.rpartition('/')[2]}.ko", (modules / f"{one}.ko").read_bytes())
    init = INIT.replace("MODULES", names).replace("COMMAND", shlex.quote(command))
    archive.file("init", init.encode(), is_executable=True)
    archive.write(target)
