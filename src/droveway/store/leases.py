"""Each duty has one owner: a lease with an epoch, kept alive by a counter that readers time themselves."""

from __future__ import annotations

from sqlalchemy import RowMapping, insert, select, update

from droveway.store.schema import leases
from droveway.store.transaction import Tx


def regain(tx: Tx, name: str, owner: str) -> int:
    """Take a lease that is ours by name (a restarted owner has it at once). Returns the new epoch."""
    row = tx.execute(select(leases).where(leases.c.name == name)).mappings().first()
    if row is None:
        tx.execute(insert(leases).values(name=name, owner=owner, epoch=1, counter=0))
        return 1
    epoch = int(row["epoch"]) + 1
    tx.execute(update(leases).where(leases.c.name == name).values(owner=owner, epoch=epoch, counter=row["counter"] + 1))
    return epoch


def renew(tx: Tx, name: str, epoch: int) -> bool:
    """Raise the counter; False when somebody with a newer epoch owns it."""
    return bool(
        tx.execute(
            update(leases).where(leases.c.name == name, leases.c.epoch == epoch).values(counter=leases.c.counter + 1)
        ).rowcount
    )


def listing(tx: Tx) -> list[RowMapping]:
    return list(tx.execute(select(leases)).mappings())
