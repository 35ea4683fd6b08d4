"""What the libvirtd of a lab host is told, and the other files that differ from host to host."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

TCP_PORT = 16509
PRIVATE = ("etc", "pki", "lib", "cache", "log", "instances")  # bound over the machine's own by host-init
DISK_TLS = Path("pki/droveway-disks")  # /etc/pki/droveway-disks in the host: what its guests open served disks with
PROBED = Path("cache/qemu/capabilities")  # what libvirtd learned of QEMU: 1.4-2 s of work


def write_files(state: Path, address: str, names: dict[str, str]) -> None:
    """Everything a host needs on disk before it starts; what it wrote itself earlier stays."""
    for directory in PRIVATE:
        (state / directory).mkdir(parents=True, exist_ok=True)
    (state / DISK_TLS).mkdir(parents=True, exist_ok=True)
    identity = state / "uuid"
    if not identity.exists() or not identity.read_text():
        identity.write_text(str(uuid.uuid4()))
    (state / "etc" / "libvirtd.conf").write_text(_daemon(address, identity.read_text(), has_tls=has_tls(state)))
    (state / "etc" / "qemu.conf").write_text(_qemu(address))
    lines = ["127.0.0.1 localhost", *(f"{known} {name}" for name, known in names.items())]
    (state / "hosts").write_text("\n".join(lines) + "\n")
    _write_accounts(state)


def has_tls(state: Path) -> bool:
    """Whether this host has joined with a certificate, which lies where its libvirtd reads it."""
    return (state / "pki" / "libvirt" / "servercert.pem").exists()


def _daemon(address: str, identity: str, *, has_tls: bool) -> str:
    """Plain TCP without authentication: the network it listens on ends in the lab's own namespaces. A host with a
    certificate listens with TLS alone."""
    return f"""\
host_uuid = "{identity}"
listen_tls = {int(has_tls)}
listen_tcp = {int(not has_tls)}
listen_addr = "{address}"
tcp_port = "{TCP_PORT}"
auth_tcp = "none"
auth_unix_rw = "none"
min_workers = 5
max_workers = 20
max_client_requests = 20
keepalive_interval = 1
keepalive_count = 2
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def _qemu(address: str) -> str:
    """The host's namespaces are the fence: QEMU runs as root in them, without cgroups and security drivers. Files
    keep their owners, because a host that lost a migration must not take the disk from the one that won."""
    return f"""\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
vnc_listen = "{address}"
migration_address = "{address}"
migration_host = "{address}"
keepalive_interval = 1
keepalive_count = 2
max_core = 0
nbd_tls_x509_cert_dir = "/etc/{DISK_TLS}"
"""


def _write_accounts(state: Path) -> None:
    """Debian's QEMU driver does not load unless its user exists, even when it will not be used."""
    for table, entries in (
        ("passwd", ("libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin",)),
        ("group", ("libvirt-qemu:x:64055:", "libvirt:x:64056:")),
    ):
        known = Path("/etc", table).read_text()
        missing = [entry for entry in entries if f"\n{entry.split(':')[0]}:" not in f"\n{known}"]
        (state / table).write_text(known.rstrip("\n") + "\n" + "".join(f"{entry}\n" for entry in missing))


def seed_probed(state: Path, store: Path) -> None:
    """Hand a new host what others learned of the same QEMU; libvirtd itself checks that it still holds."""
    if not (state / PROBED).exists() and store.is_dir():
        shutil.copytree(store, state / PROBED)


def keep_probed(state: Path, store: Path) -> None:
    """Remember for the next new host what this one has learned."""
    if not (state / PROBED).is_dir():
        return
    store.mkdir(parents=True, exist_ok=True)
    for learned in (state / PROBED).glob("*.xml"):
        kept = store / learned.name
        if not kept.exists() or kept.read_bytes() != learned.read_bytes():
            unfinished = kept.with_suffix(".new")
            shutil.copy(learned, unfinished)
            unfinished.rename(kept)
