"""What a hostile agent may say: every message of the protocol with one thing in it wrong, and some that are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from droveway.domain.model import CopyProgress, Guest, GuestJob, GuestState, MigrationEndpoint, Resources
from droveway.domain.placement import NumaCell
from droveway.domain.resources import GuestUse, HostUsage
from droveway.ports.bus import AgentDisconnected, Beat, GuestChanged, Hello, Report
from droveway.ports.replies import GuestAdmitted

HOST, OTHER = "h2", "h1"  # who is hostile, and whom it would harm
NUMBERS = (-1, 1 << 63, (1 << 64) - 1, -(1 << 63), 1.5, float("nan"), "1", None, [], True)
TEXTS = (
    "",
    "\0",
    "x" * 5000,
    "x" * 300_000,
    "../../etc/passwd",
    "h1\nh1",
    "\x1b[31m",
    7,
    None,
    [],
    {},
    b"bytes",
    OTHER,
)
LISTS = (None, "x", {}, [1, None, "x"], [[]] * 70_000)
GUEST = Guest("g1", GuestState.RUNNING, GuestJob.OUTGOING, CopyProgress(1, 1, 1, 1, 1, 1), "it failed")
RESOURCES = Resources(
    "KVM",
    7002022,
    HOST,
    8,
    16384,
    12000,
    500,
    400,
    cpu_features=("f",),
    cpu_topology={"cores": 8},
    cpu_xml="<cpu><arch>x86_64</arch></cpu>",
    machine_types=("pc",),
    peer_uri="qemu+tls://h2/system",
    host_ip="h2",
    cells=(NumaCell(0, (0, 1), 100),),
)
MEASURED = HostUsage(1, (1.0, 1.0, 1.0), 1, 1, 1, 1, (GuestUse("g1", 1, 1, 1),))
REPORT = Report(HOST, "boot", 1, True, "", RESOURCES, (GUEST,), True, ("g2",), generation=1, measured=MEASURED)
ENDPOINT = MigrationEndpoint(HOST, "qemu+tls://h2/system", "tcp://h2")
ANSWER = GuestAdmitted(GUEST, ENDPOINT, "boot")
GOOD: dict[str, Any] = {
    "hello": Hello(HOST, "boot", "here"),
    "report": REPORT,
    "changed": GuestChanged(HOST, "boot", GUEST),
    "gone": AgentDisconnected(HOST, "it goes"),
    "answer": ANSWER,
    "beat": Beat(HOST, "boot", 1, 1, ("a",), (1,), (1,), 1, ("n",)),
}
NO_MESSAGES = (
    b"",
    b"\x00",
    b"\xc1",
    b"\x91" * 5000,
    b"\x81\xa4type\xa4gone",
    b"\xff" * 300,
    b"x" * 100_000,
    msgspec.msgpack.encode({"type": "nonsense"}),
    msgspec.msgpack.encode(["type"]),
)


def wrong(kind: str) -> Iterator[Any]:
    """That message, each time with one value replaced, left out or added; as plain values."""
    whole = msgspec.to_builtins(GOOD[kind])
    yield from _spoilt(whole)
    yield {**whole, "more": "x" * 1000}
    yield {**whole, "type": "nonsense"}
    yield {**whole, "host": OTHER}


def _spoilt(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in value:
            yield {name: one for name, one in value.items() if name != key}
            for other in _spoilt(value[key]):
                yield {**value, key: other}
    elif isinstance(value, (list, tuple)):
        yield from LISTS
        for other in _spoilt(value[0]) if value else ():
            yield [other, *value[1:]]
    elif isinstance(value, str):
        yield from TEXTS
    else:
        yield from NUMBERS
