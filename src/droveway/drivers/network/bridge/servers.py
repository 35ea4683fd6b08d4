"""One namespace of a host made as the plan has it, and its dnsmasq kept. All of it blocks; see kernel.py.

A dnsmasq is a daemon that outlives the agent. Its directory holds what it reads, its leases, its pid, and the command
line that it was started with: another one, and it is replaced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from droveway.drivers.network.bridge import kernel, leases
from droveway.drivers.network.bridge.namespaces import Dnsmasq, Leg, Namespace
from droveway.drivers.network.bridge.nftables import Nftables
from droveway.ports.network import NetworkRefused

ENDS_S, POLL_S = 2.0, 0.01
DEPTH = 2  # directories above that of one dnsmasq that are its host's own
FORWARDS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class Servers:
    """`directory`: of what dnsmasq reads. Those who are not root read it too, for dnsmasq is nobody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rules: dict[str, tuple[Nftables, str, int]] = {}  # by namespace: what was loaded, and the generation then
        self._floating: dict[str, frozenset[str]] = {}

    def make(self, wanted: Namespace, seen: dict[str, dict[str, Any]]) -> None:
        """As it is wanted. `seen`: the devices of the host. Raises NetworkRefused, OSError."""
        if not kernel.is_namespace(wanted.name):
            self.forget(wanted.name)
            kernel.make_namespace(wanted.name)
        inner = kernel.links(wanted.name)
        self._load_rules(wanted)
        for leg in wanted.legs:
            _plug(leg, wanted.name, seen, inner)
        known = {leg.inner for leg in wanted.legs} | {"lo"}
        kernel.change_links([f"link del dev {name}" for name in inner if name not in known], wanted.name)
        self._route(wanted)
        self._cut_floating(wanted)
        self._serve(wanted)

    def _load_rules(self, wanted: Namespace) -> None:
        """Before its devices: it is never open."""
        loaded = self._rules.get(wanted.name)
        if loaded is None:
            with kernel.inside(wanted.name):
                loaded = Nftables(), "", -1
        nftables, text, generation = loaded
        if text != wanted.rules or nftables.generation() != generation:
            nftables.run(wanted.rules)
            loaded = nftables, wanted.rules, nftables.generation()
        self._rules[wanted.name] = loaded

    def _route(self, wanted: Namespace) -> None:
        if not wanted.forwards:
            return
        with kernel.inside(wanted.name):
            for path in FORWARDS:
                kernel.set_sysctl(path, "1")
        there = kernel.routes(wanted.name)
        less = [kernel.route_line("del", *one) for one in sorted(there - wanted.routes)]
        more = [kernel.route_line("replace", *one) for one in sorted(wanted.routes - there)]
        kernel.change_links(less + more, wanted.name)

    def _cut_floating(self, wanted: Namespace) -> None:
        """A floating address that is taken away takes its connections along: their translation would go on."""
        for address in self._floating.get(wanted.name, frozenset()) - wanted.floating:
            for way in ("--orig-dst", "--reply-dst"):
                with contextlib.suppress(NetworkRefused):  # it fails when there is none
                    kernel.run("conntrack", "-D", way, address, namespace=wanted.name)
        self._floating[wanted.name] = wanted.floating

    # -- dnsmasq ------------------------------------------------------------------------------------------------------
    def _serve(self, wanted: Namespace) -> None:
        directory = self._directory / wanted.name
        if wanted.dnsmasq is None:
            self._end(directory)
            return
        directory.mkdir(parents=True, exist_ok=True)
        for one in (directory, *directory.parents[:DEPTH]):  # dnsmasq reads its hosts again as a user without rights
            one.chmod(0o711)
        before = _read(directory / leases.HOSTS)
        changed = [_put(directory / name, text) for name, text in wanted.dnsmasq.files]
        command = _command(wanted.dnsmasq, directory)
        pid = _running(directory)
        line = "\n".join(command)
        given, now = directory / leases.LEASES, _read(directory / leases.HOSTS)
        is_good = leases.kept(_read(given), before, now) == _read(given)
        if pid and is_good and _read(directory / "command") == line:
            if any(changed):
                os.kill(pid, signal.SIGHUP)
            return
        self._end(directory, keeps_files=True)
        if not is_good:
            _put(given, leases.kept(_read(given), before, now))
        kernel.run(*command, namespace=wanted.name)
        _put(directory / "command", line)

    def _end(self, directory: Path, keeps_files: bool = False) -> None:
        pid = _running(directory)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                for _ in range(int(ENDS_S / POLL_S)):
                    if not _running(directory):
                        break
                    time.sleep(POLL_S)
                else:
                    os.kill(pid, signal.SIGKILL)
        (directory / "pid").unlink(missing_ok=True)
        if not keeps_files:
            shutil.rmtree(directory, ignore_errors=True)

    # -- the end of one -----------------------------------------------------------------------------------------------
    def remove(self, name: str) -> None:
        self._end(self._directory / name)
        self.forget(name)
        kernel.delete_namespace(name)

    def left(self, prefixes: tuple[str, ...]) -> set[str]:
        """Of which there is a namespace, or a directory."""
        try:
            found = {one.name for one in self._directory.iterdir() if one.name.startswith(prefixes)}
        except FileNotFoundError:
            found = set()
        return found | kernel.namespaces(prefixes)

    def forget(self, name: str) -> None:
        loaded = self._rules.pop(name, None)
        if loaded is not None:
            loaded[0].close()
        self._floating.pop(name, None)

    def close(self) -> None:
        for name in list(self._rules):
            self.forget(name)


def _plug(leg: Leg, namespace: str, seen: dict[str, dict[str, Any]], inner: dict[str, dict[str, Any]]) -> None:
    """Its cable, its MAC, its MTU and its addresses, and no others."""
    there, outer = inner.get(leg.inner), seen.get(leg.outer)
    if there is None or outer is None:
        lines = [f"link del dev {leg.outer}"] if outer is not None else []
        peer = f"peer name {leg.inner} address {leg.mac} netns {namespace}"
        kernel.change_links([*lines, f"link add name {leg.outer} type veth {peer}"])
        there, outer = {}, {}
        with kernel.inside(namespace):
            kernel.set_sysctl(f"ipv4/conf/{leg.inner}/arp_notify", "1")  # its neighbours learn where it is now
            kernel.set_sysctl(f"ipv6/conf/{leg.inner}/ndisc_notify", "1")
            kernel.set_sysctl(f"ipv6/conf/{leg.inner}/accept_ra", "0")
            kernel.set_sysctl(f"ipv6/conf/{leg.inner}/accept_dad", "0")  # control gives no address twice
    if (outer.get("master"), outer.get("mtu")) != (leg.bridge, leg.mtu_bytes) or "UP" not in outer.get("flags", ()):
        kernel.change_links([f"link set dev {leg.outer} addrgenmode none mtu {leg.mtu_bytes} master {leg.bridge} up"])
    has = {f"{one['local']}/{one['prefixlen']}" for one in there.get("addr_info", ()) if _is_given(one)}
    wanted = set(leg.cidrs)
    lines = [f"addr del {cidr} dev {leg.inner}" for cidr in sorted(has - wanted)]
    lines += [
        f"addr add {cidr} dev {leg.inner}{' nodad' if ':' in cidr else ''}" for cidr in leg.cidrs if cidr not in has
    ]
    if there.get("address") != leg.mac or there.get("mtu") != leg.mtu_bytes or "UP" not in there.get("flags", ()):
        lines.append(f"link set dev {leg.inner} address {leg.mac} mtu {leg.mtu_bytes} up")
    kernel.change_links(lines, namespace)


def _is_given(address: dict[str, Any]) -> bool:
    """Not made by the kernel of its MAC."""
    return address.get("scope") != "link" or address.get("family") == "inet" or address["local"] == "fe80::a9fe:a9fe"


def _command(wanted: Dnsmasq, directory: Path) -> list[str]:
    files = {name for name, _ in wanted.files}
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-resolv",
        "--no-hosts",
        "--except-interface=lo",
        "--bind-interfaces",
        f"--pid-file={directory / 'pid'}",
        f"--dhcp-leasefile={directory / leases.LEASES}",
        *([f"--dhcp-hostsfile={directory / leases.HOSTS}"] if leases.HOSTS in files else []),
        *([f"--dhcp-optsfile={directory / 'options'}"] if "options" in files else []),
        *wanted.arguments,
    ]


def _read(path: Path) -> str:
    """Empty: there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _put(path: Path, text: str) -> bool:
    """By one step; whether it was another text."""
    if path.exists() and path.read_text() == text:
        return False
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.chmod(0o644)
    unfinished.rename(path)
    return True


def _running(directory: Path) -> int:
    """The pid of the dnsmasq of that directory; 0: none. A pid that another process has by now is not its."""
    try:
        pid = int((directory / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if f"--pid-file={directory / 'pid'}".encode() in command.split(b"\0") else 0
