"""As whom a host comes to its Ceph cluster: its own user and key, from its own files, the key private in its libvirt.

Nothing of this crosses a wire: a volume's source names the cluster, its pool and its image alone.
"""

from __future__ import annotations

import base64
import configparser
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import libvirt

from droveway.drivers.hypervisor.libvirt.volume_xml import CephAccess
from droveway.ports.hypervisor import HypervisorRefused

_SECRETS = UUID("6f2f8a53-1c1e-5b0c-9f53-0d3c52a1a7b4")  # the space of names of their ids
_MONITOR = re.compile(r"(?:v1:)?(?P<host>\[[0-9a-fA-F:]+\]|[^\s:,/\[\]]+)(?::(?P<port>\d+))?(?:/\d+)?")
PORT = "6789"


def read(conf_path: str, user: str, keyring_path: str) -> tuple[str, CephAccess, bytes]:
    """The cluster's id, the access to it, and the key. Raises HypervisorRefused with what is wrong in those files."""
    conf = _ini(conf_path)
    fsid, monitors = _of_global(conf, "fsid"), _monitors(_of_global(conf, "mon host"))
    if not fsid or not monitors:
        raise HypervisorRefused(f"{conf_path} names no {'mon host' if fsid else 'fsid'} in [global].")
    section = f"client.{user}"
    key = _ini(keyring_path).get(section, "key", fallback="")
    if not key:
        raise HypervisorRefused(f"{keyring_path} has no key of [{section}].")
    return fsid, CephAccess(user, secret_of(fsid, user), monitors), base64.b64decode(key)


def secret_of(fsid: str, user: str) -> str:
    """The id of the secret of that user in the libvirt of whichever host comes as that."""
    return str(uuid5(_SECRETS, f"{fsid}/{user}"))


def of_host(files: tuple[str, str, str] | None) -> str:
    """FSID/USER: as whom this host opens disks, for another one that sends it a guest. Empty where it opens none, or
    its files cannot be read: a guest with such disks is refused before."""
    if files is None:
        return ""
    try:
        fsid = _of_global(_ini(files[0]), "fsid")
        return f"{fsid}/{files[1]}" if fsid else ""
    except HypervisorRefused:
        return ""


def _ini(path: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        text = Path(path).read_text(encoding="utf-8")
        found.read_string("\n".join(line.strip() for line in text.splitlines()))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise HypervisorRefused(f"{path} cannot be read: {error}.") from None
    return found


def _of_global(conf: configparser.ConfigParser, name: str) -> str:
    """Ceph takes blanks and underscores for the same."""
    return conf.get("global", name, fallback="") or conf.get("global", name.replace(" ", "_"), fallback="")


def _monitors(text: str) -> tuple[tuple[str, str], ...]:
    """Those of the first protocol, which every librbd speaks."""
    listed = re.split(r"[\s,]+", re.sub(r"\[(?=v[12]:)", "", text))
    plain = (
        one[:-1] if one.count("]") > one.count("[") else one for one in listed if one and not one.startswith("v2:")
    )
    found = map(_MONITOR.fullmatch, plain)
    return tuple((one["host"].strip("[]"), one["port"] or PORT) for one in found if one is not None)


def define_secret(connection: Any, fsid: str, access: CephAccess, key: bytes) -> None:
    """Idempotent. Private: libvirt itself tells nobody what it holds."""
    secret = ET.Element("secret", ephemeral="yes", private="yes")
    ET.SubElement(secret, "uuid").text = access.secret
    ET.SubElement(secret, "description").text = f"droveway: {access.user} of the Ceph cluster {fsid}"
    usage = ET.SubElement(secret, "usage", type="ceph")
    ET.SubElement(usage, "name").text = f"droveway {access.user} {fsid}"
    try:
        connection.secretDefineXML(ET.tostring(secret, encoding="unicode")).setValue(key)
    except libvirt.libvirtError as error:
        raise HypervisorRefused(f"libvirt takes no secret for Ceph: {error.get_error_message()}.") from None
