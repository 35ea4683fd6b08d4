"""A guest beside ours that libvirt alone runs and moves, between the same two hosts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from droveway.drivers.hypervisor.libvirt.ceph_keys import secret_of
from lab.cloud import Cloud
from lab.hosts import Host

BARE_ID = "00000000-0000-4000-8000-00000000ba5e"

_MOVE = """
import json, sys, time, libvirt
name, peer, data, disks, renamed = json.loads(sys.argv[1])
source = libvirt.open("qemu:///system")
domain = source.lookupByName(name)
flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST
         | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_UNSAFE)
parameters = {libvirt.VIR_MIGRATE_PARAM_URI: data}
if disks:
    flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC
    parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = disks
if renamed:
    for name, kind in ((libvirt.VIR_MIGRATE_PARAM_DEST_XML, 0),
                       (libvirt.VIR_MIGRATE_PARAM_PERSIST_XML, libvirt.VIR_DOMAIN_XML_INACTIVE)):
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE | kind)
        for old, new in renamed:
            xml = xml.replace(old, new)
        parameters[name] = xml
began = time.monotonic()
domain.migrateToURI3(peer, parameters, flags)
print((time.monotonic() - began) * 1000)
"""
_COMMAND_S = 120.0


class BareGuest:
    """A copy of our guest that the program does not know: same XML but for name, id and files, and `bridge`, to which
    its interface leads. A root disk in a pool must have been made there under BARE_ID before.

    `disk_gb`: of its root disk, where that is a file; `filled` is called with the host and the path of a new one.
    Where each host has a store of its own, the disk is copied along, as our guest's is.
    """

    def __init__(
        self,
        cloud: Cloud,
        server: str,
        bridge: str = "",
        *,
        disk_gb: int = 1,
        filled: Callable[[Host, Path], None] = lambda _host, _disk: None,
    ) -> None:
        self._cloud, self._name, self._disk_gb = cloud, "bare", disk_gb
        self._is_apart = cloud.instances != cloud.lab.shared / "instances"
        self._files = cloud.instances
        self._directory = (self._files if self._is_apart else cloud.lab.shared) / "bare"
        self._at = next(h.name for h in cloud.lab.hosts if server in self._virsh(h.name, "list", "--uuid"))
        here = cloud.lab.host(self._at)
        xml = self._virsh(self._at, "dumpxml", "--inactive", server)
        self._has_file = str(self._files / server / "disk'") in xml
        self._make_files(here)
        if self._has_file:
            filled(here, self._directory / "disk")
        self._run(here, "sh", "-c", f"cp {self._files / server}/disk.config {self._directory} 2>/dev/null || true")
        xml = xml.replace(str(self._files / server), str(self._directory)).replace(server, BARE_ID)
        begin, end = xml.index("<name>"), xml.index("</name>")
        xml = xml[:begin] + "<name>bare" + xml[end:]
        if "<metadata>" in xml:
            xml = xml[: xml.index("<metadata>")] + xml[xml.index("</metadata>") + len("</metadata>") :]
        xml = re.sub(r"<source bridge='[^']*'/>", f"<source bridge='{bridge}'/>", xml)
        xml = re.sub(r"<target dev='dwt[^']*'/>", "", xml)
        file = cloud.lab.shared / "bare.xml"
        file.write_text(xml)
        self._virsh(self._at, "define", str(file))
        self._virsh(self._at, "start", self._name)

    def _make_files(self, host: Host) -> None:
        """A directory, and a disk of the guest's image with nothing in it."""
        self._run(host, "mkdir", "-p", str(self._directory))
        if self._has_file:
            base = self._run(host, "sh", "-c", f"ls {self._files}/_base/*.qcow2").split()[0]
            made = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base)
            self._run(host, *made, str(self._directory / "disk"), f"{self._disk_gb}G")

    @staticmethod
    def _run(host: Host, *words: str) -> str:
        done = host.run(*words, timeout_s=_COMMAND_S)
        assert done.returncode == 0, f"{' '.join(words)} on {host.name}: {done.stderr}"
        return done.stdout

    def _virsh(self, host: str, *words: str) -> str:
        return self._run(self._cloud.lab.host(host), "virsh", "-q", "-c", "qemu:///system", *words)

    def move(self) -> float:
        """To the other host; milliseconds of libvirt's own call."""
        other = next(host for host in self._cloud.lab.hosts if host.name != self._at)
        here = self._cloud.lab.host(self._at)
        if self._is_apart:
            self._make_files(other)
        disks = ["vda"] if self._is_apart and self._has_file else []
        told = json.dumps([self._name, other.peer_uri, other.data_uri, disks, self._renamed(here.name, other.name)])
        took = self._run(here, sys.executable, "-c", _MOVE, told)
        if self._is_apart:
            self._run(here, "rm", "-rf", str(self._directory))
        self._at = other.name
        return float(took)

    def _renamed(self, here: str, there: str) -> list[tuple[str, str]]:
        """What is otherwise in its XML there: each host comes to Ceph as a user of its own."""
        if self._cloud.storage.kind != "ceph":
            return []
        fsid = self._cloud.storage.ceph().fsid
        return [(f"username='{here}'", f"username='{there}'"), (secret_of(fsid, here), secret_of(fsid, there))]

    @property
    def host(self) -> str:
        return self._at

    def end(self) -> None:
        self._virsh(self._at, "destroy", self._name)
        self._virsh(self._at, "undefine", self._name)
        self._run(self._cloud.lab.host(self._at), "rm", "-rf", str(self._directory))
