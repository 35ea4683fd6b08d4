"""What the driver asks of the kernel and of programs: links, addresses, routes, namespaces. All of it blocks.

It is called by one thread, which stays in the network namespace of the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from droveway.ports.network import NetworkRefused

NAMED = Path("/run/netns")  # where `ip -n NAME` looks
PROGRAMS = {"ip": "iproute2", "bridge": "iproute2", "dnsmasq": "dnsmasq-base", "conntrack": "conntrack"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT_S = 20
REASON_MAX = 600
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913


def missing_programs() -> str:
    """A sentence, or an empty text."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    packages = ", ".join(dict.fromkeys(PROGRAMS[name] for name in missing))
    return f"{', '.join(missing)} not found: install {packages}" if missing else ""


def run(*command: str, stdin: str = "", namespace: str = "") -> str:
    """What it prints. Raises NetworkRefused with its words."""
    prefix = ("nsenter", f"--net={NAMED / namespace}", "--") if namespace else ()
    try:
        done = subprocess.run(
            (*prefix, *command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd="/",
            env={"PATH": PATH, "LANG": "C.UTF-8"},  # nothing of ours: what is started outlives this process
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkRefused(f"`{' '.join(command)[:REASON_MAX]}` cannot be run: {error}"[:REASON_MAX]) from None
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise NetworkRefused(f"`{command[0]}` refuses: {words}"[:REASON_MAX])
    return done.stdout


def links(namespace: str = "") -> dict[str, dict[str, Any]]:
    """Every device of the namespace with its addresses, by name."""
    where = ("-n", namespace) if namespace else ()
    text = run("ip", *where, "-d", "-j", "addr", "show")
    return {one["ifname"]: one for one in json.loads(text or "[]") if "ifname" in one}


def change_links(lines: Iterable[str], namespace: str = "") -> None:
    """In order; what comes after a line that fails is not done."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        run("ip", *(("-n", namespace) if namespace else ()), "-batch", "-", stdin=text)


def forwarding() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("bridge", "-j", "fdb", "show") or "[]")
    return found


def change_forwarding(lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if text:
        run("bridge", "-batch", "-", stdin=text)


def routes(namespace: str) -> set[tuple[str, str]]:
    """Those that were set by hand or by us: destination and next hop; the default ones are `default`, `default6`."""
    found = set()
    for family in ("-4", "-6"):
        text = run("ip", "-n", namespace, family, "-j", "route", "show", "proto", "static")
        for one in json.loads(text or "[]"):
            is_default6 = family == "-6" and one["dst"] == "default"
            found.add(("default6" if is_default6 else _cidr(one["dst"], family), str(one.get("gateway", ""))))
    return found


def _cidr(destination: str, family: str) -> str:
    if destination == "default" or "/" in destination:
        return destination
    return f"{destination}/{32 if family == '-4' else 128}"


def route_line(verb: str, destination: str, hop: str) -> str:
    return f"route {verb} {'::/0' if destination == 'default6' else destination} via {hop} proto static"


# -- namespaces -------------------------------------------------------------------------------------------------------
def enter(path: Path | str) -> None:
    """This thread is in that network namespace from now on. Raises NetworkRefused."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkRefused(f"the network namespace {path} cannot be opened: {error.strerror}") from None
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise NetworkRefused(f"the network namespace {path} cannot be entered: {reason}")
    finally:
        os.close(descriptor)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in that one meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(NAMED / namespace)
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{home}")
    finally:
        os.close(home)


def namespaces(prefixes: tuple[str, ...]) -> set[str]:
    if not NAMED.is_dir():
        return set()
    return {one.name for one in NAMED.iterdir() if one.name.startswith(prefixes)}


def is_namespace(name: str) -> bool:
    """Whether something is mounted there: a file that is left of one that ended is none."""
    try:
        return os.stat(NAMED / name).st_dev != os.stat(NAMED).st_dev
    except OSError:
        return False


def identity_of(name: str) -> str:
    """What tells the namespace of that name from others that had it; empty: there is none."""
    return str((NAMED / name).stat().st_ino) if is_namespace(name) else ""


def make_namespace(name: str) -> None:
    """Not by `ip netns add`, which also mounts the directory on itself."""
    NAMED.mkdir(parents=True, exist_ok=True)
    (NAMED / name).touch()
    run("unshare", f"--net={NAMED / name}", "true")
    change_links(["link set dev lo up"], name)


def delete_namespace(name: str) -> None:
    if is_namespace(name):
        run("umount", "--lazy", str(NAMED / name))
    (NAMED / name).unlink(missing_ok=True)


def set_sysctl(path: str, value: str) -> None:
    """Of the namespace in which this thread is."""
    place = Path("/proc/sys/net") / path
    with contextlib.suppress(FileNotFoundError):
        if place.read_text().strip() != value:
            place.write_text(value)


def listen(address: str, port: int, device: str = "") -> socket.socket:
    """A listening socket of the namespace in which this thread is. `device`: of an address that says nothing without
    one. Raises NetworkRefused."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port, 0, socket.if_nametoindex(device)) if device else (address, port))
        made.listen(64)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise NetworkRefused(f"{address}:{port} cannot be listened at: {error.strerror}") from None
    return made


def has_device(name: str) -> bool:
    """In the namespace of this thread, without a process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("16s16x", name.encode()[:15]))
        except OSError:
            return False
    return True


class LinkWatch:
    """Whether any device or address of this namespace has changed since it was last asked."""

    _GROUPS = 1 << 0 | 1 << 4 | 1 << 8  # RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR: not what bridges learn

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, self._GROUPS))

    def has_changed(self) -> bool:
        changed = False
        while True:
            try:
                self._socket.recv(65_536)
            except BlockingIOError:
                return changed
            except OSError:  # more messages than it holds
                return True
            changed = True

    def close(self) -> None:
        self._socket.close()
