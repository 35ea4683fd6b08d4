"""What a certificate of the private CA names, and where it stands in its life. Pure.

Times are microseconds of wall time.

| stage   | begins                | what happens                                            |
|---------|-----------------------|---------------------------------------------------------|
| valid   | not before            | nothing                                                 |
| due     | 2/3 of its life       | the agent of its host renews it                         |
| late    | 3/4 of its life       | `service why` and the lists of hosts say that it is due |
| expired | not after             | it is not accepted; its host joins anew                 |

An authority:

| state   | hosts trust it | it signs | becomes                                   |
|---------|----------------|----------|-------------------------------------------|
| trusted | yes            | no       | signing (`ca use`), retired (`ca retire`) |
| signing | yes            | yes      | trusted, when another one signs           |
| retired | no             | no       | -                                         |
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from droveway.domain.peer_uri import PeerUri, WrongUri, address

TRUSTED, SIGNING, RETIRED = "trusted", "signing", "retired"
HOST, SERVICE = "host", "service"
DAY_US = 24 * 3600 * 1_000_000
BACKDATED_US = 3600 * 1_000_000  # a host whose clock is behind by less takes a new certificate at once
CLOCK_OFFSET_MAX_S = 300  # a clock that is off by more is said
ADDRESSES_MAX = 16
# Why a certificate was revoked, in the words of X.509. Only a hold ends again.
SUPERSEDED, CEASED, HELD, COMPROMISED = "superseded", "cessation_of_operation", "certificate_hold", "key_compromise"


class Stage(Enum):
    VALID = "valid"
    DUE = "due"
    LATE = "late"
    EXPIRED = "expired"


class Holder(NamedTuple):
    """Whose certificate it is: kind `host` or `service`. `uri` stands in its SAN, as SPIFFE writes identities."""

    kind: str
    name: str

    @property
    def uri(self) -> str:
        return f"spiffe://droveway/{self.kind}/{self.name}"


def due_us(not_before_us: int, not_after_us: int) -> int:
    return not_before_us + (not_after_us - not_before_us) * 2 // 3


def late_us(not_before_us: int, not_after_us: int) -> int:
    return not_before_us + (not_after_us - not_before_us) * 3 // 4


def stage(not_before_us: int, not_after_us: int, now_us: int) -> Stage:
    if now_us >= not_after_us:
        return Stage.EXPIRED
    if now_us >= late_us(not_before_us, not_after_us):
        return Stage.LATE
    return Stage.DUE if now_us >= due_us(not_before_us, not_after_us) else Stage.VALID


def day(us: int) -> str:
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def late_reason(not_before_us: int, not_after_us: int, now_us: int) -> str:
    """What is to be said of the newest certificate of a host; empty while nothing is."""
    now = stage(not_before_us, not_after_us, now_us)
    if now is Stage.EXPIRED:
        return (
            f"its certificate ended at {day(not_after_us)} UTC: other hosts and the broker refuse it; stop its agent "
            "and let it join anew"
        )
    if now is Stage.LATE:
        return (
            f"its certificate ends at {day(not_after_us)} UTC and should have been renewed at "
            f"{day(due_us(not_before_us, not_after_us))}: on the host 'droveway agent renew --config FILE' says "
            "why it was not"
        )
    return ""


def names_of(subject: Holder, addresses: Sequence[str]) -> tuple[str, ...]:
    """What stands in its SAN beside the URI: its own name, where that can be a name in DNS, and the addresses that an
    operator gave. Raises WrongUri."""
    own = [subject.name] if subject.kind == HOST and _is_name(subject.name) else []
    return tuple(dict.fromkeys([*_lower(own), *(checked_address(one, subject) for one in addresses)]))


def _lower(names: Sequence[str]) -> list[str]:
    return [name.lower().rstrip(".") for name in names]


def checked_address(text: str, subject: Holder) -> str:
    """A name in small letters or an IP address. No host is at a loopback address for others. Raises WrongUri."""
    found = address(text).rstrip(".")
    if subject.kind == HOST and is_local(found):
        raise WrongUri(f"{text[:80]!r} is no address at which other hosts find this one")
    return found


def is_local(text: str) -> bool:
    return PeerUri("tls", text).is_local


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    """An IP address as the name of a host is none in DNS: the address may be another host's."""
    try:
        return not is_ip(address(text)) and not is_local(text)
    except WrongUri:
        return False


def clock_offset_reason(own_us: int, control_us: int) -> str:
    """What is to be said of a clock beside control's; empty when it will do."""
    off_s = (own_us - control_us) // 1_000_000
    if abs(off_s) <= CLOCK_OFFSET_MAX_S:
        return ""
    way = "ahead of" if off_s > 0 else "behind"
    return (
        f"this machine's clock is {abs(off_s)} s {way} control's: certificates count by it, and those that are valid "
        "look as if they were not yet or no longer; set it (NTP)"
    )
