"""An operator's word on a host that will not come back by itself, and what follows from it.

| `declared` | its agent                     | the host is                                       |
|------------|-------------------------------|---------------------------------------------------|
|            | admitted                      | what the failure detector concludes               |
| gone       | refused                       | forced down; no saga waits for it any longer      |
| readmitted | admitted, and to end leftovers| forced down still                                 |

In the row `+down` follows the word where an operator forced the host down himself, before or meanwhile: that outlives
the word, until he lifts it.

It is no proof that the host is off: nothing that may run there is started anywhere else.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import bindparam, select, update

from droveway.domain.faults import Conflict
from droveway.domain.model import of_host
from droveway.store.compute import instances
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import certificates, services
from droveway.store.fleet import hosts as places
from droveway.store.schema import hosts
from droveway.store.schema import instances as instance_rows
from droveway.store.work import events

GONE, READMITTED = "gone", "readmitted"
FORCED_TOO = services.FORCED_TOO
NOT_YET = "; it may not be used yet: "
CHANGED = "hosts declared"  # the nudge of a change
EVENT = "host"
_NOT_PLAIN = Prepared(select(hosts.c.name, hosts.c.declared, hosts.c.declared_because).where(hosts.c.declared != ""))
_SET = Prepared(
    update(hosts)
    .where(hosts.c.name == bindparam("of"), hosts.c.declared == bindparam("was"))
    .values({name: bindparam(f"new_{name}") for name in ("declared", "declared_because", "declared_at_us")})
)


class Declaration(NamedTuple):
    """What was said of one host."""

    host: str
    declared: str
    because: str


def words(tx: Tx) -> list[Declaration]:
    """Of every host of which something was said; mostly none."""
    return [Declaration(host, word_of(declared), because) for host, declared, because in tx.execute(_NOT_PLAIN)]


def word_of(declared: str) -> str:
    """The word itself, of what stands in the row."""
    return declared.removesuffix(FORCED_TOO)


def declare_gone(tx: Tx, name: str, because: str) -> None:
    """Raises NotFound; Conflict when it is up, which no word changes."""
    row = places.get(tx, name)
    if row["is_up"] and not row["forced_down"]:
        raise Conflict(
            f"Host {name} is up, and only a host that is down is declared gone. Stop its agent, or "
            f"force it down: openstack compute service set --down {name} nova-compute"
        )
    others = [one for one in services.on_host(tx, name) if one.service != places.COMPUTE]
    if up := [one.service for one in others if one.is_up and not one.forced_down]:
        raise Conflict(
            f"Host {name} is there: its {up[0]} is up, and only a host that is down is declared gone. Stop "
            "that too, or wait until it is down."
        )
    is_forced_too = row["declared"].endswith(FORCED_TOO) or (not row["declared"] and row["forced_down"])
    _set(tx, name, row["declared"], f"{GONE}{FORCED_TOO}" if is_forced_too else GONE, because)
    _force_down(tx, name, forced_down=True)
    certificates.hold(tx, name)
    tx.execute(
        update(instance_rows)
        .where(instance_rows.c.host == name, instance_rows.c.deleted.is_(False))
        .values(power_state=instances.POWER_NONE)
    )
    events.record(tx, EVENT, of_host(name), {"reason": f"an operator declared it gone: {because}"})


def readmit(tx: Tx, name: str, how: str = "an operator readmitted it") -> None:
    """Its agent is let in again; it may be used once it has ended what the store no longer gives it."""
    row = places.get(tx, name)
    if word_of(row["declared"]) != GONE:
        raise Conflict(f"Host {name} was not declared gone: there is nothing to readmit.")
    _set(tx, name, row["declared"], row["declared"].replace(GONE, READMITTED), row["declared_because"])
    certificates.release(tx, name)
    reason = f"{how}: it may be used once it holds nothing that is not its own"
    events.record(tx, EVENT, of_host(name), {"reason": reason})


def readmit_if_gone(tx: Tx, name: str) -> None:
    """It joins anew."""
    if any(word.host == name and word.declared == GONE for word in words(tx)):
        readmit(tx, name, "it joined anew with a token")


def admit(tx: Tx, name: str) -> None:
    """It was compared, and holds nothing that the store does not give it."""
    declared = places.get(tx, name)["declared"]
    if word_of(declared) != READMITTED:
        return
    _set(tx, name, declared, "", "")
    use = "and stays down, because an operator has forced it down besides"
    if not declared.endswith(FORCED_TOO):
        _force_down(tx, name, forced_down=False)
        use = "and may be used again"
    events.record(tx, EVENT, of_host(name), {"reason": f"it holds nothing that is not its own, {use}"})


def wait(tx: Tx, name: str, why_not: str) -> None:
    """It was let in again, and may not be used yet."""
    row = places.get(tx, name)
    before = row["declared_because"]
    if word_of(row["declared"]) != READMITTED:
        return
    because = f"{before.partition(NOT_YET)[0]}{NOT_YET}{why_not}"
    tx.execute(update(hosts).where(hosts.c.name == name).values(declared_because=because))
    if because != before:
        events.record(tx, EVENT, of_host(name), {"reason": f"it may not be used yet: {why_not}"})


def _set(tx: Tx, name: str, was: str, new: str, because: str) -> None:
    values = {
        "of": name,
        "was": was,
        "new_declared": new,
        "new_declared_because": because,
        "new_declared_at_us": tx.now_us if new else None,
    }
    tx.nudges.append(CHANGED)
    if not tx.execute(_SET, values).rowcount:
        raise Conflict(f"Host {name} was declared something else this very moment; see 'droveway host show {name}'.")


def _force_down(tx: Tx, name: str, *, forced_down: bool) -> None:
    for row in services.list_all(tx, name, places.COMPUTE):
        services.force_down(tx, row["uuid"], forced_down=forced_down)
