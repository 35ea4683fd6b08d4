"""Files that a guest has left on a host, and that are to be deleted there when it answers: those of its stay before it
moved and took its disks along, or those into which its disks were to come."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update

from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import FileCleanupRow
from droveway.store.schema import file_cleanups

DEFERRED = "file cleanups"  # the nudge
_C = file_cleanups.c
_THAT = (_C.host == bindparam("of_host"), _C.instance_id == bindparam("of"))
_INSERT = Prepared(insert(file_cleanups))
_DELETE = Prepared(delete(file_cleanups).where(*_THAT))
_DELETE_MARKED = Prepared(delete(file_cleanups).where(*_THAT, _C.mark == bindparam("of_mark")))
_OF = Prepared(select(file_cleanups).where(_C.instance_id == bindparam("of")).order_by(_C.host))
_FORGET_OF = Prepared(delete(file_cleanups).where(_C.instance_id == bindparam("of")))
_INSTANCES = Prepared(select(_C.instance_id))
_SOME = Prepared(select(file_cleanups).order_by(_C.tried_at_us, _C.host, _C.instance_id).limit(bindparam("most")))
_TRIED = Prepared(update(file_cleanups).where(*_THAT).values(tried_at_us=bindparam("now_us")))


def defer(tx: Tx, host: str, instance_id: str, mark: str, *, when_deleted: bool = False) -> None:
    """The last word counts. `when_deleted`: not before the server is."""
    forget(tx, host, instance_id)
    row = {"host": host, "instance_id": instance_id, "mark": mark, "when_deleted": when_deleted, "tried_at_us": 0}
    tx.execute(_INSERT, row)
    if DEFERRED not in tx.nudges:
        tx.nudges.append(DEFERRED)


def forget(tx: Tx, host: str, instance_id: str, mark: str | None = None) -> None:
    """They are gone, or the guest lives there again; with a mark, if it is still those that are left."""
    of = {"of_host": host, "of": instance_id}
    tx.execute(*((_DELETE, of) if mark is None else (_DELETE_MARKED, of | {"of_mark": mark})))


def of_instance(tx: Tx, instance_id: str) -> list[FileCleanupRow]:
    """Those of the hosts that have files of it still. On the store of one of them it is not made anew, and takes no
    place: what lies there would be taken for its disk, or its disk be deleted for what lay there."""
    return results.every(FileCleanupRow, tx.execute(_OF, {"of": instance_id}))


def forget_all(tx: Tx, instance_id: str) -> None:
    """Every host that had some has deleted them."""
    tx.execute(_FORGET_OF, {"of": instance_id})


def instance_ids(tx: Tx) -> set[str]:
    return set(tx.execute(_INSTANCES).scalars())


def some(tx: Tx, most: int) -> list[FileCleanupRow]:
    """Those that were not tried for longest."""
    return results.every(FileCleanupRow, tx.execute(_SOME, {"most": most}))


def tried(tx: Tx, host: str, instance_id: str) -> None:
    tx.execute(_TRIED, {"of_host": host, "of": instance_id, "now_us": tx.now_us})
