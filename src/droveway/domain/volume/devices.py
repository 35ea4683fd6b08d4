"""Which device a volume gets: the first letter that neither another volume of its guest nor a disk of its host has.

A volume keeps its device for as long as it is attached; the disks of the host take what is left, each time they are
begun with.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase

from droveway.domain.faults import BadRequest

PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd", "usb": "sd"}
HOTPLUGGED = frozenset({"virtio", "scsi"})
VOLUMES_MAX = 20  # of one guest: letters are left for the disks of its host
DRIVE = "d"  # where the config drive is, if that is free


def letters_of_host(taken: Iterable[str], local_disks: int, *, config_drive: bool) -> tuple[str, ...]:
    """Of the disks that lie on its host, beside volumes with those letters."""
    free = [letter for letter in ascii_lowercase if letter not in set(taken)]
    drive = [letter for letter in free[local_disks:] if letter >= DRIVE][:1] if config_drive else []
    return (*free[:local_disks], *drive)


def root_device(bus: str) -> str:
    """Of the volume that a guest begins from: it stands first."""
    return PREFIX[bus] + "a"


def next_device(bus: str, devices: Iterable[str], local_disks: int, *, config_drive: bool) -> str:
    """Beside volumes with those devices. Raises BadRequest when there are too many."""
    taken = [device[2:] for device in devices]
    if len(taken) >= VOLUMES_MAX:
        raise BadRequest(f"it has {len(taken)} volumes, and a server has {VOLUMES_MAX} at most")
    used = {*taken, *letters_of_host(taken, local_disks, config_drive=config_drive)}
    return PREFIX[bus] + next(letter for letter in ascii_lowercase if letter not in used)


def bus_of(disk_bus: str, *, is_running: bool) -> str:
    """That of the guest's own disks, where one can be plugged there while it runs."""
    return disk_bus if disk_bus in HOTPLUGGED or not is_running else "virtio"
