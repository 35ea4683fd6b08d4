"""Who wants to log in: by a password, by an application credential, or by the signature of an EC2-style key. Every
wrong login is answered with the same words after the same time; the log says what was wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from droveway.api.http.request import Request
from droveway.api.identity import passwords
from droveway.api.wiring import Api
from droveway.domain.faults import Unauthorized
from droveway.ports.credentials import LoginRefusal, Person
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, keys
from droveway.store.identity.rows import ApplicationCredentialRow, UserRow

log = structlog.get_logger("droveway.api")
WRONG = "The user, its domain or the password is not right."
SHOWN_MAX = 64


def wrong(request: Request, who: str, reason: str) -> Unauthorized:
    """The one refusal, told to the log with its reason."""
    fields = {"user": who[:SHOWN_MAX], "from": request.address, "because": str(reason)}
    log.warning("login refused", request_id=request.id, **fields)
    return Unauthorized(WRONG)


def _sought(tx: Tx, given: Mapping[str, str]) -> tuple[UserRow | None, str | None]:
    """The user, and the domain in which it was sought: by id, or by name in a domain by id or name."""
    if "id" in given:
        row = accounts.find_user(tx, id=given["id"])
        return row, row and row["domain_id"]
    by = {"id": given["domain_id"]} if "domain_id" in given else {"name": given["domain_name"]}
    domain = accounts.find_domain(tx, **by)
    if domain is None:
        return None, None
    return accounts.find_user(tx, name=given["name"], domain_id=domain["id"]), domain["id"]


async def by_password(
    api: Api, request: Request, given: Mapping[str, str], password: str, *, may_have_expired: bool = False
) -> UserRow:
    """The user with that password. Raises Unauthorized, TooMany, Unreachable."""
    row, domain_id = await api.store.read(_sought, given)
    name = row["name"] if row is not None else given.get("name", "")
    # A directory takes a name whatever its case and spaces are: that must buy no further attempts.
    who = f"{domain_id}/{' '.join((name or given.get('id', '')).casefold().split())}"
    attempt = await api.attempts.begin(who, request.address, api.clock.monotonic_s())
    is_wrong = False
    try:
        found = await api.credentials_of(domain_id or "").verify(domain_id or "", name, password)
        is_wrong = not isinstance(found, Person)
    finally:
        attempt.end(is_wrong=is_wrong)
    if isinstance(found, LoginRefusal):
        raise wrong(request, given.get("name") or given["id"], found)
    if row is None or row["id"] != found.key:
        row = await api.known(domain_id or "", found)
    if not row["enabled"]:
        raise wrong(request, name, LoginRefusal.DISABLED)
    expires_at_us = row["password_expires_at_us"]
    if not may_have_expired and expires_at_us is not None and expires_at_us <= api.clock.now_us():
        raise Unauthorized(
            f"The password is expired and needs to be changed for user: {row['id']}. "
            f"Change it with POST /identity/v3/users/{row['id']}/password."
        )
    return row


async def by_application_credential(
    api: Api, request: Request, given: Mapping[str, Any], secret: str
) -> ApplicationCredentialRow:
    """By its id, or by its name and its user. Raises Unauthorized, TooMany."""

    def read(tx: Tx) -> ApplicationCredentialRow | None:
        if "id" in given:
            return keys.find_application(tx, id=given["id"])
        user, _ = _sought(tx, given["user"])
        return user and keys.find_application(tx, user_id=user["id"], name=given["name"])

    row = await api.store.read(read)
    who = row["id"] if row is not None else str(given.get("id") or given)
    attempt = await api.attempts.begin(who, request.address, api.clock.monotonic_s())
    is_right = False
    try:
        is_right = await passwords.matches(api.hashing, row["secret_hash"] if row else None, secret)
    finally:
        attempt.end(is_wrong=not is_right)
    named = f"application credential {who}"
    if row is None:
        raise wrong(request, named, "there is no such application credential")
    if not is_right:
        raise wrong(request, named, "the secret is wrong")
    if row["expires_at_us"] is not None and row["expires_at_us"] <= api.clock.now_us():
        raise wrong(request, named, "it has expired")
    return row
