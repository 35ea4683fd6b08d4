"""`droveway control` with nine more kinds of services than there are yet: hosts of the crowd carry ten each."""

from __future__ import annotations

from droveway import main
from droveway.domain import service_kinds
from droveway.domain.service_kinds import Kind

OTHERS = tuple(f"binary-{number}" for number in range(1, 10))


def know_them() -> None:
    """In this process."""
    service_kinds.KINDS.update((binary, Kind("benchmark")) for binary in OTHERS)


if __name__ == "__main__":
    know_them()
    main.main()
