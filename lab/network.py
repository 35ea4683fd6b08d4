"""Network namespaces by name, and the links in them. Nothing appears in the machine's own network namespace."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAMED = Path("/run/netns")  # where `ip -n NAME` looks
BRIDGE = "br0"
TIMEOUT_S = 10
CLONE_NEWNET = 0x40000000


class NetworkFailed(Exception):
    """A network namespace or link could not be made; the message is the kernel's."""


def path(name: str) -> Path:
    return NAMED / name


def create(name: str) -> None:
    """A fresh, empty namespace of that name; one that was there is let go.

    Not by `ip netns add`, which also mounts /run/netns on itself and never takes that back.
    """
    delete(name)
    NAMED.mkdir(exist_ok=True)
    path(name).touch()
    _run("unshare", f"--net={path(name)}", "true")


def create_bridged(name: str, cidr: str) -> None:
    """A fresh one with a bridge that has that address."""
    create(name)
    build(
        name,
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {cidr} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )


def plug(name: str, link: str, peer: str, device: str) -> None:
    """A cable from the bridge there, with that name, to a device of another namespace."""
    delete_link(name, link)
    build(name, f"link add {link} type veth peer name {device} netns {peer}", f"link set {link} master {BRIDGE} up")


def delete(name: str) -> None:
    if path(name).exists():
        _run("ip", "netns", "del", name)
    with suppress(OSError):  # others may have namespaces too
        NAMED.rmdir()


def delete_link(namespace: str, link: str) -> None:
    """At once, where a link of a deleted namespace goes only when the kernel finds the time."""
    _run("ip", "-n", namespace, "link", "del", link, may_fail=True)


def names(prefix: str) -> list[str]:
    return sorted(entry.name for entry in NAMED.glob(f"{prefix}*")) if NAMED.is_dir() else []


def build(namespace: str, *lines: str) -> None:
    """Runs `ip` lines inside the namespace, in order, in one process."""
    _run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


def is_bridged(namespace: str) -> bool:
    if not path(namespace).exists():
        return False
    return BRIDGE in _run("ip", "-n", namespace, "-o", "link", "show", "up", may_fail=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, and whatever it starts meanwhile, is in that network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path(namespace), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise NetworkFailed(f"a network namespace cannot be entered: {os.strerror(ctypes.get_errno())}")


def _run(*command: str, stdin: str = "", may_fail: bool = False) -> str:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise NetworkFailed(f"{command[0]} is not installed: a lab needs iproute2 and util-linux") from None
    except subprocess.TimeoutExpired:
        raise NetworkFailed(f"`{' '.join(command)}` did not end within {TIMEOUT_S} s") from None
    if done.returncode and not may_fail:
        raise NetworkFailed(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
