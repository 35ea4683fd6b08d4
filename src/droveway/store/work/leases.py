"""Each duty has one owner: a lease with an epoch, kept alive by a counter that readers time themselves."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select, update

from droveway.domain.faults import Stale
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import LeaseRow
from droveway.store.schema import leases

# The lease of the failure detector. Its stored name stays: under a new one, controls of both releases would hold a
# lease each during an upgrade, and two failure detectors would write verdicts.
DETECTOR = "judge"
CONTROLS = "control:"  # before the name of a control: its own lease
_ALL = Prepared(select(leases))
_OF = Prepared(select(leases).where(leases.c.name == bindparam("of")))
_HELD_BY = Prepared(select(leases.c.owner, leases.c.epoch).where(leases.c.name == bindparam("of")))
_REGAIN = Prepared(
    update(leases)
    .where(leases.c.name == bindparam("of"))
    .values(owner=bindparam("new_owner"), epoch=bindparam("new_epoch"), counter=leases.c.counter + 1)
)
_RENEW = Prepared(
    update(leases)
    .where(leases.c.name == bindparam("of"), leases.c.epoch == bindparam("seen_epoch"))
    .values(counter=leases.c.counter + 1)
)


def regain(tx: Tx, name: str, owner: str) -> int:
    """Take a lease that is ours by name (a restarted owner has it at once). Returns the new epoch."""
    row = results.first(LeaseRow, tx.execute(_OF, {"of": name}))
    if row is None:
        tx.execute(insert(leases).values(name=name, owner=owner, epoch=1, counter=0))
        return 1
    epoch = int(row["epoch"]) + 1
    tx.execute(_REGAIN, {"of": name, "new_owner": owner, "new_epoch": epoch})
    return epoch


def renew(tx: Tx, name: str, epoch: int) -> bool:
    """Raise the counter; False when an owner with a newer epoch has it."""
    return bool(tx.execute(_RENEW, {"of": name, "seen_epoch": epoch}).rowcount)


def take(tx: Tx, name: str, owner: str, seen_epoch: int) -> int | None:
    """Take a lease over, as it was seen (epoch 0: there was none). The new epoch, or None when another was first."""
    if seen_epoch == 0:
        if tx.execute(select(leases.c.name).where(leases.c.name == name)).first() is not None:
            return None
        tx.execute(insert(leases).values(name=name, owner=owner, epoch=1, counter=0))
        return 1
    done = tx.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.epoch == seen_epoch)
        .values(owner=owner, epoch=seen_epoch + 1, counter=leases.c.counter + 1)
    )
    return seen_epoch + 1 if done.rowcount else None


def release(tx: Tx, name: str, epoch: int) -> None:
    """Another control may take it at once."""
    tx.execute(update(leases).where(leases.c.name == name, leases.c.epoch == epoch).values(owner=""))


def must_hold(tx: Tx, name: str, epoch: int) -> None:
    """Raises Stale when the lease was taken over since."""
    row = tx.execute(_HELD_BY, {"of": name}).first()
    if row is None or row.epoch != epoch:
        raise Stale(f"the lease {name} of epoch {epoch} was taken over by {row.owner if row else 'another'}")


def listing(tx: Tx) -> list[LeaseRow]:
    return results.every(LeaseRow, tx.execute(_ALL))
