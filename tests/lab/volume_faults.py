"""Something is killed at a step of what is done to a volume: the service that the step asks, control, or what has the
bytes (a server of an export, the OSD). Nothing is stuck, nothing is left, and it ends as it would have.

The service is stopped first, so that the step is surely under way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.lab.volume_scene import Guest, kill, stopped

AGENT, CONTROL, BYTES = "its service", "control", "what has the bytes"
VICTIMS = (AGENT, CONTROL, BYTES)


class Fault(NamedTuple):
    deed: str
    step: str
    asks: str  # volume or compute
    victim: str

    def __str__(self) -> str:
        return f"{self.victim} at {self.step} of {self.deed}"


STEPS = {
    "ceph": (
        ("create", "make_volume", "volume"),
        ("attach", "admit_host", "volume"),
        ("attach", "attach_disk", "compute"),
        ("detach", "detach_disk", "compute"),
        ("detach", "withdraw_each", "volume"),
        ("snapshot", "make_snapshot", "volume"),
        ("extend", "extend_volume", "volume"),
        ("extend", "grow_disk", "compute"),
    ),
    "lvm": (  # linear volumes: no snapshots, and none grows while it is in use
        ("create", "make_volume", "volume"),
        ("attach", "admit_host", "volume"),
        ("attach", "attach_disk", "compute"),
        ("detach", "detach_disk", "compute"),
        ("detach", "withdraw_each", "volume"),
        ("extend", "extend_volume", "volume"),
    ),
}
ALL = {kind: [Fault(*step, victim) for step in steps for victim in VICTIMS] for kind, steps in STEPS.items()}
# Each step and each victim at least once, over both kinds; the first attachment is struck by itself (attach_with).
CORE = {
    "ceph": (
        Fault("create", "make_volume", "volume", CONTROL),
        Fault("snapshot", "make_snapshot", "volume", BYTES),
        Fault("extend", "grow_disk", "compute", AGENT),
    ),
    "lvm": (
        Fault("attach", "attach_disk", "compute", BYTES),
        Fault("detach", "detach_disk", "compute", CONTROL),
        Fault("detach", "withdraw_each", "volume", AGENT),
        Fault("extend", "extend_volume", "volume", CONTROL),
    ),
}


def play(guest: Guest, fault: Fault) -> None:
    """And everything is put away again."""
    volume = guest.volume() if fault.deed != "create" else ""
    made = _DEEDS[fault.deed](guest, fault, volume)
    if made and fault.deed == "snapshot":
        guest.delete(made, "snapshots")
    volume = volume or made
    if volume in guest.has():
        guest.detach(volume)
        guest.until(volume, "available")
    guest.delete(volume)
    guest.usable()
    guest.nothing_is_wrong()


def attach_with(guest: Guest, victim: str, volume: str) -> None:
    """That is killed while the volume's backend is to admit the guest's host."""
    _attach(guest, Fault("attach", "admit_host", "volume", victim), volume)
    guest.usable()


def _strike(guest: Guest, fault: Fault, begin: Callable[[], str], *subjects: str) -> str:
    """Begin it, and kill at the step. Returns what was begun with."""
    asked = guest.service(fault.asks)
    with stopped(asked):
        begun = begin()
        guest.stands_at(fault.step, *subjects, begun)
        if fault.victim == AGENT:
            kill(asked)
        elif fault.victim == CONTROL:
            kill(guest.processes_of("control"))
        elif guest.kind == "ceph":
            osd = guest.cloud.storage.ceph().process("osd")
            assert osd is not None, "it runs"
            kill([osd])
        elif found := guest.exports():  # none where no host is admitted yet, or no longer
            kill(found)
    if fault.victim == BYTES and guest.kind == "ceph":
        guest.cloud.storage.start()
        guest.cloud.storage.wait()
    return begun


def _create(guest: Guest, fault: Fault, _: str) -> str:
    made = _strike(guest, fault, lambda: guest.make(size=1))
    guest.until(made, "available")
    return made


def _attach(guest: Guest, fault: Fault, volume: str) -> str:
    def begin() -> str:
        guest.attach(volume)
        return volume

    _strike(guest, fault, begin, guest.id)
    guest.soon(lambda: guest.status(volume) in ("in-use", "available"), f"volume {volume} is to be attached, or not")
    if guest.status(volume) == "available":  # its guest was refused by a server that was just begun again
        assert fault.victim == BYTES and guest.kind == "lvm", "nothing else refuses"
        assert volume not in guest.has()
    return ""


def _detach(guest: Guest, fault: Fault, volume: str) -> str:
    guest.attach(volume)
    guest.until(volume, "in-use")

    def begin() -> str:
        guest.detach(volume)
        return volume

    _strike(guest, fault, begin, guest.id)
    guest.until(volume, "available")
    assert volume not in guest.has()
    return ""


def _snapshot(guest: Guest, fault: Fault, volume: str) -> str:
    made = _strike(guest, fault, lambda: guest.make("snapshots", volume_id=volume))
    guest.until(made, "available", "snapshots")
    return made


def _extend(guest: Guest, fault: Fault, volume: str) -> str:
    rests = "available"
    if guest.kind == "ceph":
        guest.attach(volume)
        guest.until(volume, rests := "in-use")

    def begin() -> str:
        guest.extend(volume, 2)
        return volume

    _strike(guest, fault, begin)
    guest.until(volume, rests)
    assert guest.compute.must("GET", f"/volume/v3/volumes/{volume}")["volume"]["size"] == 2
    return ""


_DEEDS = {"create": _create, "attach": _attach, "detach": _detach, "snapshot": _snapshot, "extend": _extend}
