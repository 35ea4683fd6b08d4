"""What the private CA has signed, for whom, and what of it was revoked. Keys are never here.

Names are control's: the host's own, and the addresses that an operator gave its token. A name belongs to one subject;
it is free again when that is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update

from droveway.domain import certificates as life
from droveway.domain import model
from droveway.domain.certificates import DAY_US, HOST, RETIRED, SIGNING, TRUSTED, Holder, Stage
from droveway.domain.faults import Conflict, NotFound, Unauthorized
from droveway.domain.peer_uri import WrongUri
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import CertificateRow
from droveway.store.schema import authorities, certificate_names, certificates, hosts
from droveway.store.work import events

AUTHORITIES_MAX = 4  # not retired: libvirt takes 16 in one file
LIVE_MAX = 8  # certificates of one host that are neither expired nor revoked; one more ends the oldest
A_DAY_MAX = 32  # for one host
SERVICES_MAX = 1000
KEPT_US = 30 * DAY_US  # after its end
FORGOTTEN_AT_ONCE = 1000
CHANGED = "certificates"  # the nudge of every change of what is trusted or revoked


class Authority(NamedTuple):
    fingerprint: str
    certificate: str
    state: str
    created_at_us: int
    not_after_us: int


class Grant(NamedTuple):
    """What is to be signed: a row that is in the store already."""

    serial: str
    authority: str
    subject: Holder
    names: tuple[str, ...]
    not_before_us: int
    not_after_us: int


# -- authorities ------------------------------------------------------------------------------------------------------
def all_authorities(tx: Tx) -> list[Authority]:
    """The oldest first."""
    return [Authority(*row) for row in tx.execute(select(authorities).order_by(authorities.c.created_at_us))]


def trusted(tx: Tx) -> list[Authority]:
    return [one for one in all_authorities(tx) if one.state != RETIRED]


def signing(tx: Tx) -> Authority:
    """Raises Conflict."""
    for one in all_authorities(tx):
        if one.state == SIGNING:
            return one
    raise Conflict("There is no CA here: set api.agents_listen in the file of an API, and start it.")


def begin(tx: Tx, fingerprint: str, certificate: str, not_after_us: int) -> Authority:
    """The first authority; where there is one that signs already, that one."""
    found = [one for one in all_authorities(tx) if one.state == SIGNING]
    return found[0] if found else _add(tx, fingerprint, certificate, not_after_us, SIGNING)


def trust(tx: Tx, fingerprint: str, certificate: str, not_after_us: int) -> Authority:
    """One more, which does not sign yet. Raises Conflict."""
    known = all_authorities(tx)
    if any(one.fingerprint == fingerprint for one in known):
        raise Conflict(f"The CA {fingerprint[:16]} is known already; 'droveway ca show' tells what it is.")
    if sum(one.state != RETIRED for one in known) >= AUTHORITIES_MAX:
        raise Conflict(f"{AUTHORITIES_MAX} CAs are trusted already, which is the bound; retire one that no host needs.")
    return _add(tx, fingerprint, certificate, not_after_us, TRUSTED)


def use(tx: Tx, fingerprint: str) -> Authority:
    """It signs from now on, and the one before is trusted still. Raises NotFound, Conflict."""
    one = _named(tx, fingerprint)
    if one.state == RETIRED:
        raise Conflict(f"The CA {one.fingerprint[:16]} was retired: no host trusts it any more.")
    tx.execute(update(authorities).where(authorities.c.state == SIGNING).values(state=TRUSTED))
    tx.execute(update(authorities).where(authorities.c.fingerprint == one.fingerprint).values(state=SIGNING))
    tx.nudges.append(CHANGED)
    return _named(tx, one.fingerprint)


def retire(tx: Tx, fingerprint: str, *, in_spite: bool) -> Authority:
    """No host trusts it any more. Raises NotFound; Conflict while it signs, and, unless `in_spite`, while certificates
    of it are in use."""
    one = _named(tx, fingerprint)
    if one.state == SIGNING:
        raise Conflict(f"The CA {one.fingerprint[:16]} signs; let another one do so first: droveway ca use FINGERPRINT")
    live = len(_newest_by_subject(tx, one.fingerprint))
    if live and not in_spite:
        raise Conflict(
            f"The newest certificate of {live} hosts and services is of the CA {one.fingerprint[:16]}: they "
            "renew within the hour of their agents, or say --force, after which they are not accepted."
        )
    tx.execute(update(authorities).where(authorities.c.fingerprint == one.fingerprint).values(state=RETIRED))
    tx.nudges.append(CHANGED)
    return _named(tx, one.fingerprint)


def _add(tx: Tx, fingerprint: str, certificate: str, not_after_us: int, state: str) -> Authority:
    made = Authority(fingerprint, certificate, state, tx.now_us, not_after_us)
    tx.execute(insert(authorities).values(made._asdict()))
    tx.nudges.append(CHANGED)
    return made


def _named(tx: Tx, fingerprint: str) -> Authority:
    """By its beginning, too."""
    found = [one for one in all_authorities(tx) if fingerprint and one.fingerprint.startswith(fingerprint.lower())]
    if len(found) != 1:
        many = "more than one CA begins" if found else "no CA begins"
        raise NotFound(f"{many} with {fingerprint[:64]}; 'droveway ca show' lists them.")
    return found[0]


# -- granting ---------------------------------------------------------------------------------------------------------
def grant(tx: Tx, subject: Holder, addresses: Sequence[str], validity_us: int, holds: Callable[[str], bool]) -> Grant:
    """A certificate for these names, of the authority that signs. `holds(fingerprint)`: whether its key is here.
    Raises Conflict."""
    by = signing(tx)
    if not holds(by.fingerprint):
        raise Conflict(
            f"This API does not hold the key of the CA {by.fingerprint[:16]}, which signs: copy the directory "
            "of the CA (ca.directory) from the machine where it was made."
        )
    try:
        names = life.names_of(subject, addresses)
    except WrongUri as wrong:
        raise Conflict(f"{subject.kind} {subject.name} gets no certificate: {wrong}") from None
    claim(tx, subject, names)
    _forget_old(tx)
    if subject.kind == HOST:
        _end_oldest(tx, subject)
    elif _count_live(tx, subject.kind) >= SERVICES_MAX:
        raise Conflict(
            f"{SERVICES_MAX} certificates of services are in use, which is the bound; revoke those that are "
            "not: droveway ca revoke SERIAL"
        )
    serial = f"{1 + int.from_bytes(hashlib.sha256(tx.names.secret().encode()).digest()[:15], 'big'):x}"
    made = Grant(
        serial,
        by.fingerprint,
        subject,
        names,
        tx.now_us - life.BACKDATED_US,
        min(tx.now_us + validity_us, by.not_after_us),
    )
    tx.execute(
        insert(certificates).values(
            serial=serial,
            authority=by.fingerprint,
            kind=subject.kind,
            name=subject.name,
            names=list(names),
            not_before_us=made.not_before_us,
            not_after_us=made.not_after_us,
        )
    )
    return made


def claim(tx: Tx, subject: Holder, names: Sequence[str]) -> None:
    """These names are that subject's, beside those that it has. Raises Conflict when one is another's."""
    for name in names:
        if life.is_local(name):
            continue
        held = tx.execute(select(certificate_names).where(certificate_names.c.name == name)).mappings().first()
        if held is not None and (held["kind"], held["owner"]) != subject:
            raise Conflict(
                f"{name} is the name of {held['kind']} {held['owner']}, so {subject.kind} {subject.name} gets "
                "no certificate for it."
            )
        other = tx.execute(select(hosts.c.name).where(func.lower(hosts.c.name) == name)).scalars().all()
        if any((HOST, one) != subject for one in other):
            raise Conflict(
                f"{name} is the name of host {other[0]}, so {subject.kind} {subject.name} gets no certificate for it."
            )
        if held is None:
            tx.execute(insert(certificate_names).values(name=name, kind=subject.kind, owner=subject.name))


def _end_oldest(tx: Tx, subject: Holder) -> None:
    live = (
        tx.execute(
            select(certificates.c.serial).where(_is_live(tx, subject)).order_by(certificates.c.not_before_us.desc())
        )
        .scalars()
        .all()
    )
    for serial in live[LIVE_MAX - 1 :]:
        _end(tx, certificates.c.serial == serial, life.SUPERSEDED)


def _forget_old(tx: Tx) -> None:
    old = (
        select(certificates.c.serial).where(certificates.c.not_after_us < tx.now_us - KEPT_US).limit(FORGOTTEN_AT_ONCE)
    )
    tx.execute(delete(certificates).where(certificates.c.serial.in_(old)))


def _count_live(tx: Tx, kind: str) -> int:
    rows = select(func.count()).where(
        certificates.c.kind == kind, certificates.c.not_after_us > tx.now_us, certificates.c.revoked_at_us.is_(None)
    )
    return int(tx.execute(rows).scalar_one())


# -- who shows one ----------------------------------------------------------------------------------------------------
def holder(tx: Tx, serial: str) -> Holder:
    """Whose certificate that is. Raises Unauthorized when it is not valid."""
    row = _row(tx, serial)
    if row is None:
        raise Unauthorized(f"The certificate {serial[:40]} is not known here: let its host join anew.")
    if row["revoked_at_us"] is not None and row["revoked_because"] is not None:
        raise Unauthorized(
            f"The certificate {serial} of {row['kind']} {row['name']} was revoked "
            f"({row['revoked_because'].replace('_', ' ')}) at {life.day(row['revoked_at_us'])} UTC: let "
            "its host join anew, or readmit it where it was declared gone."
        )
    if row["not_after_us"] <= tx.now_us:
        raise Unauthorized(
            f"The certificate {serial} of {row['kind']} {row['name']} ended at "
            f"{life.day(row['not_after_us'])} UTC: let its host join anew."
        )
    return Holder(row["kind"], row["name"])


def _row(tx: Tx, serial: str) -> CertificateRow | None:
    return results.first(CertificateRow, tx.execute(select(certificates).where(certificates.c.serial == serial)))


def renew(tx: Tx, serial: str, validity_us: int, holds: Callable[[str], bool]) -> Grant:
    """Another one for the same names. Raises Unauthorized, Conflict."""
    subject = holder(tx, serial)
    young = select(func.count()).where(
        certificates.c.kind == subject.kind,
        certificates.c.name == subject.name,
        certificates.c.not_before_us > tx.now_us - life.BACKDATED_US - DAY_US,
    )
    if tx.execute(young).scalar_one() >= A_DAY_MAX:
        raise Conflict(
            f"{subject.kind} {subject.name} was given {A_DAY_MAX} certificates within a day, which is the bound: each "
            "that was replaced stands in every list of what was revoked. It renews tomorrow; see what asks for them."
        )
    names = tx.execute(select(certificates.c.names).where(certificates.c.serial == serial)).scalar_one()
    return grant(tx, subject, names, validity_us, holds)


def is_of_signing(tx: Tx, serial: str) -> bool:
    of = tx.execute(select(certificates.c.authority).where(certificates.c.serial == serial)).scalar()
    return of == signing(tx).fingerprint


def trusts(tx: Tx, serial: str, fingerprints: Sequence[str]) -> None:
    """Its holder says which authorities it trusts; written only when that has changed, and only those there are."""
    of = certificates.c.serial == serial
    known = {one.fingerprint for one in all_authorities(tx)}
    found = sorted(known & set(fingerprints))
    if tx.execute(select(certificates.c.trusts).where(of)).scalar() != found:
        tx.execute(update(certificates).where(of).values(trusts=found))


# -- revoking ---------------------------------------------------------------------------------------------------------
def end_of_host(tx: Tx, host: str, because: str = life.CEASED) -> None:
    """All that it has: it is forgotten, or joins anew. Its names are free again."""
    subject = Holder(HOST, host)
    _end(tx, _is_live(tx, subject, held_too=True), because)
    tx.execute(delete(certificate_names).where(certificate_names.c.kind == HOST, certificate_names.c.owner == host))


def hold(tx: Tx, host: str) -> None:
    """It was declared gone."""
    _end(tx, _is_live(tx, Holder(HOST, host)), life.HELD)


def release(tx: Tx, host: str) -> None:
    """It was readmitted: what was held is good again."""
    held = (certificates.c.kind == HOST) & (certificates.c.name == host) & (certificates.c.revoked_because == life.HELD)
    if tx.execute(update(certificates).where(held).values(revoked_at_us=None, revoked_because=None)).rowcount:
        tx.nudges.append(CHANGED)


def revoke(tx: Tx, serial: str) -> CertificateRow:
    """One whose key may be compromised. Raises NotFound."""
    row = _row(tx, serial.lower())
    if row is None:
        raise NotFound(f"There is no certificate {serial[:40]}; 'droveway ca list --all' lists them.")
    ends = certificates.c.revoked_at_us.is_(None) | (certificates.c.revoked_because == life.HELD)
    _end(tx, (certificates.c.serial == row["serial"]) & ends, life.COMPROMISED)
    subject = Holder(row["kind"], row["name"])
    if subject.kind != HOST and not tx.execute(select(certificates.c.serial).where(_is_live(tx, subject))).first():
        owned = (certificate_names.c.kind == subject.kind) & (certificate_names.c.owner == subject.name)
        tx.execute(delete(certificate_names).where(owned))
    ended = _row(tx, row["serial"])
    assert ended is not None, "it was there a moment ago"
    return ended


def revoke_all(tx: Tx, host: str) -> list[CertificateRow]:
    """Those of a host that are good or held, whose machine may be in other hands: it joins anew, by a token for it.
    Raises NotFound when there is none."""
    which = _is_live(tx, Holder(HOST, host), held_too=True)
    serials = tx.execute(select(certificates.c.serial).where(which)).scalars().all()
    if not serials:
        raise NotFound(
            f"Host {host[:64]} has no certificate that could be revoked; 'droveway ca list --all' shows those "
            "there are."
        )
    _end(tx, which, life.COMPROMISED)
    query = select(certificates).where(certificates.c.serial.in_(serials)).order_by(certificates.c.serial)
    return results.every(CertificateRow, tx.execute(query))


def _is_live(tx: Tx, subject: Holder, *, held_too: bool = False) -> ColumnElement[bool]:
    unrevoked: ColumnElement[bool] = certificates.c.revoked_at_us.is_(None)
    if held_too:
        unrevoked = unrevoked | (certificates.c.revoked_because == life.HELD)
    return (
        (certificates.c.kind == subject.kind)
        & (certificates.c.name == subject.name)
        & (certificates.c.not_after_us > tx.now_us)
        & unrevoked
    )


def _end(tx: Tx, which: ColumnElement[bool], because: str) -> None:
    ended = tx.execute(
        update(certificates)
        .where(which)
        .values(revoked_at_us=tx.now_us, revoked_because=because)
        .returning(certificates.c.serial, certificates.c.kind, certificates.c.name)
    ).all()
    for serial, kind, name in ended:
        about = model.of_host(name) if kind == HOST else model.Subject(model.SubjectKind.SERVICE, name)
        reason = f"its certificate {serial} was revoked: {because.replace('_', ' ')}"
        events.record(tx, HOST if kind == HOST else "certificate", about, {"reason": reason})
    if ended:
        tx.nudges.append(CHANGED)


def revoked(tx: Tx) -> list[CertificateRow]:
    """Those that have not expired, in the order of their serials."""
    query = select(certificates).where(
        certificates.c.revoked_at_us.is_not(None), certificates.c.not_after_us > tx.now_us
    )
    return results.every(CertificateRow, tx.execute(query.order_by(certificates.c.serial)))


# -- looking ----------------------------------------------------------------------------------------------------------
def listing(tx: Tx) -> list[CertificateRow]:
    """All that are kept, by subject, the newest first."""
    order = (certificates.c.kind, certificates.c.name, certificates.c.not_before_us.desc())
    return results.every(CertificateRow, tx.execute(select(certificates).order_by(*order)))


def _newest_by_subject(tx: Tx, authority: str) -> list[CertificateRow]:
    """Of that authority alone, and neither expired nor revoked."""
    newest: dict[tuple[str, str], CertificateRow] = {}
    for row in listing(tx):
        if row["revoked_at_us"] is None:
            newest.setdefault((row["kind"], row["name"]), row)
    return [row for row in newest.values() if row["authority"] == authority and row["not_after_us"] > tx.now_us]


_ENDS = (
    select(certificates.c.name, func.max(certificates.c.not_after_us), func.max(certificates.c.not_before_us))
    .where(certificates.c.kind == HOST, certificates.c.revoked_at_us.is_(None))
    .group_by(certificates.c.name)
)
_ENDS_OF_ALL, _ENDS_OF = Prepared(_ENDS), Prepared(_ENDS.where(certificates.c.name == bindparam("of")))


def late(tx: Tx, host: str | None = None) -> dict[str, str]:
    """The hosts whose newest certificate should have been renewed, each with a sentence."""
    ends = tx.execute(_ENDS_OF_ALL) if host is None else tx.execute(_ENDS_OF, {"of": host})
    found = {}
    for name, not_after_us, not_before_us in ends:
        if life.stage(not_before_us, not_after_us, tx.now_us) in (Stage.LATE, Stage.EXPIRED):
            found[name] = life.late_reason(not_before_us, not_after_us, tx.now_us)
    return found
