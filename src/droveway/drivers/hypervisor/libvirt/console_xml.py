"""The consoles of a libvirt guest: a screen and a serial line, each a unix socket on the host; neither listens on TCP.

The screen's socket lies in the directory that libvirt makes for each domain, where its QEMU may make one; libvirt
chooses its name anew on each host. That of the serial line is made by libvirtd and handed to QEMU, under the same path
on every host: it is in a directory of the host's own, in memory, and never on the instance store, which hosts share.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from droveway.domain.consoles import ConsoleKind
from droveway.domain.hardware import NO_SCREEN

CONSOLES = "/run/droveway/consoles"  # of the serial lines
_WHERE = {
    ConsoleKind.VNC: ("devices/graphics[@type='vnc']/listen[@type='socket']", "socket"),
    ConsoleKind.SERIAL: ("devices/serial[@type='unix']/source[@mode='bind']", "path"),
}


def add(devices: ET.Element, instance_id: str, instance_dir: str, video: str) -> None:
    """To <devices> of a guest: what it writes to its serial line goes to its log, whether anybody looks at it or not.
    `video`: the device of its screen."""
    serial = ET.SubElement(devices, "serial", type="unix")
    ET.SubElement(serial, "source", mode="bind", path=f"{CONSOLES}/{instance_id}")
    # append: a restarted or arriving guest goes on in the same log, and the log may be cut short under it.
    ET.SubElement(serial, "log", file=f"{instance_dir}/console.log", append="on")
    ET.SubElement(serial, "target", port="0")
    if video != NO_SCREEN:
        ET.SubElement(ET.SubElement(devices, "graphics", type="vnc"), "listen", type="socket")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type=video)


def socket_in(domain: str, kind: ConsoleKind) -> str:
    """The path in the XML of a domain that runs; empty where it has no such console."""
    where, attribute = _WHERE[kind]
    found = ET.fromstring(domain).find(where)
    return "" if found is None else found.get(attribute, "")
