"""Files that a guest has left on a host, and that are to be deleted there when it answers: those of its stay before it
moved and took its disks along, or those into which its disks were to come."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update

from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import OwedFilesRow
from droveway.store.schema import owed_files

OWED = "owed files"  # the nudge
_C = owed_files.c
_THAT = (_C.host == bindparam("of_host"), _C.instance_id == bindparam("of"))
_INSERT = Prepared(insert(owed_files))
_DELETE = Prepared(delete(owed_files).where(*_THAT))
_DELETE_MARKED = Prepared(delete(owed_files).where(*_THAT, _C.mark == bindparam("of_mark")))
_GET = Prepared(select(owed_files).where(*_THAT))
_DEBTORS = Prepared(select(_C.host).where(_C.instance_id == bindparam("of")).order_by(_C.host))
_SOME = Prepared(select(owed_files).order_by(_C.tried_at_us, _C.host, _C.instance_id).limit(bindparam("most")))
_TRIED = Prepared(update(owed_files).where(*_THAT).values(tried_at_us=bindparam("now_us")))


def owe(tx: Tx, host: str, instance_id: str, mark: str) -> None:
    """The last word counts."""
    forget(tx, host, instance_id)
    tx.execute(_INSERT, {"host": host, "instance_id": instance_id, "mark": mark, "tried_at_us": 0})
    if OWED not in tx.nudges:
        tx.nudges.append(OWED)


def forget(tx: Tx, host: str, instance_id: str, mark: str | None = None) -> None:
    """They are gone, or the guest lives there again; with a mark, if it is still those that are owed."""
    of = {"of_host": host, "of": instance_id}
    tx.execute(*((_DELETE, of) if mark is None else (_DELETE_MARKED, of | {"of_mark": mark})))


def owed(tx: Tx, host: str, instance_id: str) -> OwedFilesRow | None:
    return results.first(OwedFilesRow, tx.execute(_GET, {"of_host": host, "of": instance_id}))


def debtors(tx: Tx, instance_id: str) -> list[str]:
    """The hosts that have files of it still. On the store of one of them it is not made anew: what lies there would be
    taken for its disk."""
    return list(tx.execute(_DEBTORS, {"of": instance_id}).scalars())


def some(tx: Tx, most: int) -> list[OwedFilesRow]:
    """Those that were not tried for longest."""
    return results.every(OwedFilesRow, tx.execute(_SOME, {"most": most}))


def tried(tx: Tx, host: str, instance_id: str) -> None:
    tx.execute(_TRIED, {"of_host": host, "of": instance_id, "now_us": tx.now_us})
