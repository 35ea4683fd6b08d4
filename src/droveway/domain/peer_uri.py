"""Where a host's hypervisor takes connections, as other hosts are told it: a grammar, and nothing beyond it. Pure.

libvirt's own URIs can do much more: `qemu+ext://…?command=FILE` runs FILE as root on the host that connects, `qemu+ssh`
and `?socket=`, `?pkipath=`, `?no_verify=` choose programs, files and what is trusted. A host's word is data, so only
these are let through, and they are put together anew from their parts:

    qemu+tls://ADDRESS[:PORT]/system    qemu+tcp://ADDRESS[:PORT]/system    where libvirt is
    tcp://ADDRESS[:PORT]                tls://ADDRESS[:PORT]                where a guest's memory goes
    sim://HOST                          both, of a simulated host
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from droveway.domain.model import MigrationEndpoint

Read = TypeVar("Read")
ADDRESS_MAX = 253  # characters of a host name in DNS
PORT_MAX = 65_535
DEFAULT_PORTS = {"tcp": 16509, "tls": 16514}  # where libvirtd listens when its URI names no port
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")  # resolvers read 0x7f.1 as 127.0.0.1
_WHERE = r"(?P<address>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
_PEER = re.compile(rf"qemu\+(?P<transport>tls|tcp)://{_WHERE}/system")
_DATA = re.compile(rf"(?P<transport>tcp|tls)://{_WHERE}")
_SIMULATED = re.compile(r"(?P<transport>sim)://(?P<address>[A-Za-z0-9._-]{1,64})(?P<port>)")
PEER_FORM = "qemu+tls://ADDRESS/system or qemu+tcp://ADDRESS/system"
DATA_FORM = "tcp://ADDRESS or tls://ADDRESS"


class WrongUri(ValueError):
    """No such URI; the message is a sentence that ends in what it must be."""


class PeerUri(NamedTuple):
    """`transport`: tls, tcp or sim. `address`: a name, or an IP address without brackets. `port`: 0: the usual."""

    transport: str
    address: str
    port: int = 0

    @property
    def where(self) -> str:
        """ADDRESS[:PORT] as it stands in a URI."""
        return (f"[{self.address}]" if ":" in self.address else self.address) + (f":{self.port}" if self.port else "")

    @property
    def place(self) -> str:
        """The same endpoint, whether the usual port is named or not."""
        usual = self.port == DEFAULT_PORTS.get(self.transport)
        return (self._replace(port=0) if usual else self).where

    @property
    def is_local(self) -> bool:
        """Whether a client that connects there reaches itself, or no host."""
        if self.address.rstrip(".").lower() in {"localhost", "localhost.localdomain"}:
            return True
        try:
            ip = ipaddress.ip_address(self.address)
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_link_local


def peer_uri(text: str) -> PeerUri:
    """Raises WrongUri."""
    return _read(text, _PEER, "peer_uri", PEER_FORM)


def data_uri(text: str) -> PeerUri:
    """Raises WrongUri."""
    return _read(text, _DATA, "data_uri", DATA_FORM)


def address(text: str) -> str:
    """A name or an IP address, without brackets. Raises WrongUri."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if len(bare) <= ADDRESS_MAX:
        try:
            return str(ipaddress.ip_address(bare)) if "%" not in bare else _none(text)
        except ValueError:
            if _NAME.fullmatch(bare) and not _NUMBER.fullmatch(bare):
                return bare.lower()
    return _none(text)


def _none(text: str) -> str:
    raise WrongUri(f"{text[:80]!r} is no host name and no IP address")


def _read(text: str, form: re.Pattern[str], what: str, right: str) -> PeerUri:
    found = form.fullmatch(text) or _SIMULATED.fullmatch(text)
    wrong = WrongUri(f"{what} {text[:120]!r} must be {right}, without user, query or other path")
    if found is None or int(found["port"] or 0) > PORT_MAX:
        raise wrong
    try:
        return PeerUri(found["transport"], address(found["address"]), int(found["port"] or 0))
    except WrongUri:
        raise wrong from None


def checked(endpoint: MigrationEndpoint) -> tuple[str, str]:
    """Its peer URI and its data URI, put together anew, for libvirt: only what may be connected to from another host.
    Raises WrongUri."""
    peer, data = peer_uri(endpoint.peer_uri), data_uri(endpoint.data_uri)
    for what, one in (("peer_uri", peer), ("data_uri", data)):
        if one.transport == "sim":
            raise WrongUri(f"{what} {endpoint.peer_uri!r} is that of a simulated host")
        if one.is_local:
            raise WrongUri(f"{what} names {one.address}, which is no address of another host")
    return f"qemu+{peer.transport}://{peer.where}/system", f"{data.transport}://{data.where}"


def endpoint_mismatch(endpoint: MigrationEndpoint, host: str, known_peer_uri: str, known_address: str) -> str | None:
    """Why a host that is to take a guest is not where it is known to be, as a sentence; None when it is. What is known
    of it comes from its last report that was accepted; empty where it has reported nothing yet. One that an older
    release accepted may be none of these."""
    try:
        peer, data = peer_uri(endpoint.peer_uri), data_uri(endpoint.data_uri)
    except WrongUri as wrong:
        return f"{host} cannot take guests of other hosts: its {wrong}"
    if endpoint.host != host:
        return f"{host} answers in the name of {endpoint.host[:64]!r}; it must be asked again, or its agent upgraded"
    if known_peer_uri and peer != _known(peer_uri, known_peer_uri):
        return (
            f"{host} says that its hypervisor is at {peer.where}, and in its last report it was at "
            f"{known_peer_uri}; ask again when it has reported anew"
        )
    if known_address and data.transport != "sim" and data.address != _known(address, known_address):
        return (
            f"{host} says that a guest's memory goes to {data.address}, and in its last report its address was "
            f"{known_address}; ask again when it has reported anew"
        )
    return None


def _known(read: Callable[[str], Read], text: str) -> Read | None:
    try:
        return read(text)
    except WrongUri:
        return None
