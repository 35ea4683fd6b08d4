"""A guest beside ours that libvirt alone runs and moves, between the same two hosts."""

from __future__ import annotations

import re
import subprocess
import sys

from lab.cloud import Cloud

BARE_ID = "00000000-0000-4000-8000-00000000ba5e"

_MOVE = """
import sys, time, libvirt
source = libvirt.open("qemu:///system")
domain = source.lookupByName(sys.argv[1])
flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST
         | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_UNSAFE)
began = time.monotonic()
domain.migrateToURI3(sys.argv[2], {libvirt.VIR_MIGRATE_PARAM_URI: sys.argv[3]}, flags)
print((time.monotonic() - began) * 1000)
"""


class BareGuest:
    """A copy of our guest that the program does not know: same XML but for name, id and files, and `bridge`, to which
    its interface leads."""

    def __init__(self, cloud: Cloud, server: str, bridge: str = "") -> None:
        self._cloud, self._name = cloud, "bare"
        self._at = next(h.name for h in cloud.lab.hosts if server in self._virsh(h.name, "list", "--uuid"))
        xml = self._virsh(self._at, "dumpxml", "--inactive", server)
        files = cloud.lab.shared / "instances"
        self._directory = cloud.lab.shared / "bare"
        self._directory.mkdir()
        subprocess.run(
            [
                "qemu-img",
                "create",
                "-q",
                "-f",
                "qcow2",
                "-F",
                "qcow2",
                "-b",
                str(next((files / "_base").glob("*.qcow2"))),
                str(self._directory / "disk"),
                "1G",
            ],
            check=True,
            timeout=30,
        )
        xml = xml.replace(str(files / server), str(self._directory)).replace(server, BARE_ID)
        begin, end = xml.index("<name>"), xml.index("</name>")
        xml = xml[:begin] + "<name>bare" + xml[end:]
        if "<metadata>" in xml:
            xml = xml[: xml.index("<metadata>")] + xml[xml.index("</metadata>") + len("</metadata>") :]
        xml = re.sub(r"<source bridge='[^']*'/>", f"<source bridge='{bridge}'/>", xml)
        xml = re.sub(r"<target dev='dwt[^']*'/>", "", xml)
        file = self._directory / "domain.xml"
        file.write_text(xml)
        self._virsh(self._at, "define", str(file))
        self._virsh(self._at, "start", self._name)

    def _virsh(self, host: str, *words: str) -> str:
        done = self._cloud.lab.host(host).run("virsh", "-q", "-c", "qemu:///system", *words)
        assert done.returncode == 0, f"virsh {' '.join(words)} on {host}: {done.stderr}"
        return done.stdout

    def move(self) -> float:
        """To the other host; milliseconds of libvirt's own call."""
        other = next(host for host in self._cloud.lab.hosts if host.name != self._at)
        here = self._cloud.lab.host(self._at)
        done = here.run(sys.executable, "-c", _MOVE, self._name, other.peer_uri, other.data_uri, timeout_s=60)
        assert done.returncode == 0, done.stderr
        self._at = other.name
        return float(done.stdout)

    @property
    def host(self) -> str:
        return self._at

    def end(self) -> None:
        self._virsh(self._at, "destroy", self._name)
        self._virsh(self._at, "undefine", self._name)
