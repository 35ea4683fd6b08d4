"""On which host a port is: what sagas write. Each write says what it saw; a port that is somewhere else by now is left
as it is, and the answer is False."""

from __future__ import annotations

from sqlalchemy import ColumnElement, bindparam, update

from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.changes import changed
from droveway.store.network.ports import ACTIVE, DOWN
from droveway.store.network.tables import ports

c = ports.c
_THERE = bindparam("there", type_=c.host.type)
_TO = bindparam("to", type_=c.moving_to.type)
_STATUS = bindparam("new_status", type_=c.status.type)


def _where(*seen: ColumnElement[bool], **values: object) -> Prepared:
    raised = {"revision": c.revision + 1, "updated_at_us": bindparam("now")}
    return Prepared(update(ports).where(c.id == bindparam("of"), *seen).values({**values, **raised}))


_BIND = _where(c.host.in_(["", _THERE]), host=_THERE)
_UNBIND = _where(c.host == _THERE, c.moving_to == "", host="", status=DOWN)
_MOVE = _where(c.host == _THERE, c.moving_to.in_(["", _TO]), moving_to=_TO)
_ARRIVED = _where(c.moving_to == _THERE, host=_THERE, moving_to="", status=ACTIVE)
_STAYED = _where(c.host == _THERE, moving_to="")
_SET_STATUS = _where(c.host == _THERE, c.status != _STATUS, status=_STATUS)
_SET_STATUS_ANYWHERE = _where(c.status != _STATUS, status=_STATUS)


def _set(tx: Tx, statement: Prepared, port_id: str, there: str, **values: str) -> bool:
    done = tx.execute(statement, {"of": port_id, "now": tx.now_us, "there": there, **values})
    if done.rowcount:
        changed(tx, ports, port_id)
    return done.rowcount == 1


def bind(tx: Tx, port_id: str, host: str) -> bool:
    """To a host; it was on none, or on that one."""
    return _set(tx, _BIND, port_id, host)


def unbind(tx: Tx, port_id: str, host: str) -> bool:
    """From that host, if it is there and not on its way elsewhere."""
    return _set(tx, _UNBIND, port_id, host)


def move(tx: Tx, port_id: str, source: str, to: str) -> bool:
    """Its guest is about to leave `source`: it is bound to both hosts from now on."""
    return _set(tx, _MOVE, port_id, source, to=to)


def arrived(tx: Tx, port_id: str, at: str) -> bool:
    """Its guest runs there: it is bound there alone."""
    return _set(tx, _ARRIVED, port_id, at)


def stayed(tx: Tx, port_id: str, at: str) -> bool:
    """Its guest has not left after all."""
    return _set(tx, _STAYED, port_id, at)


def set_status(tx: Tx, port_id: str, host: str | None, status: str) -> bool:
    """ACTIVE, DOWN or BUILD, as its host has it; None: wherever it is. No host is told of it."""
    given = {"of": port_id, "now": tx.now_us, "new_status": status}
    if host is None:
        return tx.execute(_SET_STATUS_ANYWHERE, given).rowcount == 1
    return tx.execute(_SET_STATUS, given | {"there": host}).rowcount == 1
