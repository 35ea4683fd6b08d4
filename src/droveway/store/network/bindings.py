"""On which host a port is: what sagas write. Each write says what it saw; a port that is somewhere else by now is left
as it is, and the answer is False."""

from __future__ import annotations

from sqlalchemy import ColumnElement, update

from droveway.store.engine.transaction import Tx
from droveway.store.network.changes import changed
from droveway.store.network.ports import ACTIVE, DOWN
from droveway.store.network.tables import ports

c = ports.c


def _set(tx: Tx, port_id: str, *seen: ColumnElement[bool], **values: object) -> bool:
    done = tx.execute(
        update(ports).where(c.id == port_id, *seen).values(**values, revision=c.revision + 1, updated_at_us=tx.now_us)
    )
    if done.rowcount:
        changed(tx)
    return done.rowcount == 1


def bind(tx: Tx, port_id: str, host: str) -> bool:
    """To a host; it was on none, or on that one."""
    return _set(tx, port_id, c.host.in_(["", host]), host=host)


def unbind(tx: Tx, port_id: str, host: str) -> bool:
    """From that host, if it is there and not on its way elsewhere."""
    return _set(tx, port_id, c.host == host, c.moving_to == "", host="", status=DOWN)


def move(tx: Tx, port_id: str, source: str, to: str) -> bool:
    """Its guest is about to leave `source`: it is bound to both hosts from now on."""
    return _set(tx, port_id, c.host == source, c.moving_to.in_(["", to]), moving_to=to)


def arrived(tx: Tx, port_id: str, at: str) -> bool:
    """Its guest runs there: it is bound there alone."""
    return _set(tx, port_id, c.moving_to == at, host=at, moving_to="", status=ACTIVE)


def stayed(tx: Tx, port_id: str, at: str) -> bool:
    """Its guest has not left after all."""
    return _set(tx, port_id, c.host == at, moving_to="")


def set_status(tx: Tx, port_id: str, host: str, status: str) -> bool:
    """ACTIVE, DOWN or BUILD, as its host has it."""
    return _set(tx, port_id, c.host == host, c.status != status, status=status)
