"""What placing a volume is about: the request, and the facts of a backend. scheduler/backends.py decides."""

from __future__ import annotations

import msgspec

from droveway.domain.volume.model import BackendSettings, StorageGuarantees


class VolumeRequest(msgspec.Struct, frozen=True):
    """What is wanted. `only`: the backend that was asked for, or on which its source lies; `never`: backends that are
    out, each with its sentence. `same_host` and `different_host`: backends of the volumes named in the hints."""

    size_gb: int
    volume_type: str = ""
    extra_specs: dict[str, str] = {}  # the type's
    zone: str | None = None
    only: str | None = None
    only_because: str = ""
    never: dict[str, str] = {}
    same_host: tuple[str, ...] | None = None
    different_host: tuple[str, ...] = ()


class BackendFacts(msgspec.Struct, frozen=True):
    """A backend at one moment: what it has, what is promised of it, and whether it may be used at all. `name`:
    HOST@BACKEND. `claims` counts the promises: one is written only under the number it was decided on."""

    name: str
    driver: str
    guarantees: StorageGuarantees
    settings: BackendSettings
    total_gb: float
    free_gb: float
    allocated_gb: int
    trouble: str = ""
    frozen: bool = False
    claims: int = 0
    zone: str = "nova"
    is_up: bool = True
    reason: str = ""  # why its service is down
    disabled: bool = False
    disabled_reason: str = ""

    @property
    def usable_gb(self) -> float:
        return self.total_gb * (100 - self.settings.reserved_percentage) / 100

    @property
    def promisable_gb(self) -> float:
        """All that may be promised to volumes."""
        ratio = self.settings.max_over_subscription_ratio if self.guarantees.thin else 1.0
        return self.usable_gb * ratio

    @property
    def headroom_gb(self) -> float:
        return self.promisable_gb - self.allocated_gb

    @property
    def unreserved_gb(self) -> float:
        """What is free now, but for what is kept back."""
        return self.free_gb - (self.total_gb - self.usable_gb)

    @property
    def backend_name(self) -> str:
        """What volume types know it by."""
        return self.settings.volume_backend_name or self.name.partition("@")[2]

    def capability(self, path: str) -> str | None:
        """What it says to that word of a volume type; None: nothing."""
        own = {
            "volume_backend_name": self.backend_name,
            "storage_protocol": self.driver,
            "driver": self.driver,
            "thin_provisioning": _truth(self.guarantees.thin),
            "snapshots": _truth(self.guarantees.snapshots),
            "online_extend_support": _truth(self.guarantees.grows_in_use),
        }
        return self.settings.capabilities.get(path, own.get(path))


def _truth(value: bool) -> str:
    """As volume types write it: <is> True."""
    return "True" if value else "False"
