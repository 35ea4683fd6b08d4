"""Key pairs: import, and generation until 2.91. They belong to users, not to projects; from 2.10 on an administrator
may name another user."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any

from droveway.api.http import paging
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of, one_of, or_null, text
from droveway.api.http.render import Field, FieldTable, constant, micros
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_text
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden
from droveway.pki import user_keys
from droveway.pki.user_keys import KeyType
from droveway.store.compute import keypairs
from droveway.store.compute.keypairs import NewKeypair
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.rows import KeypairRow

TYPES_SINCE, USERS_SINCE, PAGED_SINCE, NO_GENERATION_SINCE = 2, 10, 35, 92
_NAME, _NEW_NAME = re.compile(r"[a-zA-Z0-9 _-]+"), re.compile(r"[a-zA-Z0-9 _.@-]+")

_LISTED: tuple[Field[KeypairRow], ...] = (
    Field("name", "name"),
    Field("public_key", "public_key"),
    Field("fingerprint", "fingerprint"),
    Field("type", "type", TYPES_SINCE),
)
LISTED = FieldTable(KeypairRow, *_LISTED)
MADE = FieldTable(KeypairRow, *_LISTED, Field("user_id", "user_id"))
SHOWN = FieldTable(
    KeypairRow,
    *_LISTED,
    Field("user_id", "user_id"),
    Field("id", "id"),
    Field("created_at", lambda row, view: micros(row["created_at_us"])),
    constant("updated_at", None),
    constant("deleted", False),
    constant("deleted_at", None),
)


def _name(pattern: re.Pattern[str], more: str = "") -> Any:
    def check(path: str, value: Any) -> str:
        name = as_text(path, value, 255, 1)
        if pattern.fullmatch(name) is None:
            raise BadRequest(
                f"Keypair data is invalid: Keypair name contains unsafe characters: letters, digits, spaces, _ - {more}"
                "are accepted."
            )
        if name != name.strip():
            raise BadRequest(f"Invalid input for {path}: it must not begin or end with a space.")
        return name

    return of(check, type="string", minLength=1, maxLength=255, pattern=f"^{pattern.pattern}$")


_PUBLIC_KEY = text(user_keys.KEY_MAX, 1)


class NewKey(Body, frozen=True, kw_only=True):
    """Without public_key a pair is made, and the reply alone has its private key; from 2.92 on it is required."""

    name: Annotated[
        str,
        _name(_NAME).until(NO_GENERATION_SINCE - 1).needed(),
        _name(_NEW_NAME, "@ . ").since(NO_GENERATION_SINCE).needed(),
    ] = ""
    public_key: Annotated[
        str | None,
        or_null(_PUBLIC_KEY).until(NO_GENERATION_SINCE - 1),
        _PUBLIC_KEY.since(NO_GENERATION_SINCE).needed(),
    ] = None
    type: Annotated[str, one_of(KeyType).since(TYPES_SINCE)] = KeyType.SSH
    user_id: Annotated[str | None, or_null(text(255, 1)).since(USERS_SINCE)] = None


def _owner(request: Request, user_id: str | None) -> str:
    """Whose key pairs are meant. Raises Forbidden."""
    if user_id in (None, request.caller.user_id):
        return request.caller.user_id
    if not request.caller.is_admin:
        raise Forbidden("Key pairs of another user need the role admin.")
    return str(user_id)


def _queried(request: Request, known: Collection[str] = ()) -> dict[str, str]:
    return request.known_query((*known, *(("user_id",) if request.version >= USERS_SINCE else ())))


@takes(NewKey, "keypair")
async def create(api: Api, request: Request, given: NewKey) -> Response:
    caller, kind = request.caller, KeyType(given.type)
    assert caller.project_id is not None, "the route needs a project"
    project_id, user_id = caller.project_id, _owner(request, given.user_id)
    public, made = given.public_key, None
    if public is None:
        now = datetime.fromtimestamp(api.clock.now_us() // 1_000_000, UTC)
        made = await api.hashing.run(user_keys.generated, kind, user_id, now)
        public = made.public
    new = NewKeypair(user_id, given.name, kind.value, public, user_keys.fingerprint(kind, public))

    def write(tx: Tx) -> KeypairRow:
        if accounts.find_user(tx, id=user_id) is None:
            raise BadRequest(f"There is no user {user_id[:64]}.")
        return keypairs.create(tx, new, project_id, api.settings.quotas)

    row = await api.store.run(write)
    body = MADE.renderer(request.version, is_admin=caller.is_admin)(row, None)
    if made is not None:
        body["private_key"] = made.private
    return Response(201 if request.version >= TYPES_SINCE else 200, {"keypair": body})


async def listing(api: Api, request: Request) -> Response:
    is_paged = request.version >= PAGED_SINCE
    given = _queried(request, ("limit", "marker") if is_paged else ())
    page = paging.asked(api, request) if is_paged else paging.whole(api.settings.page_max)
    user_id = _owner(request, given.get("user_id"))

    def read(tx: Tx) -> Any:
        with paging.marked(page.marker):
            return keypairs.find(tx, user_id, after=page.marker, limit=page.limit)

    rows = await api.store.read(read)
    render = LISTED.renderer(request.version, is_admin=request.caller.is_admin)
    items = [{"keypair": render(row, None)} for row in rows]
    return Response(200, paging.listed(api, request, page, "keypairs", items, rows, key="name"))


async def show(api: Api, request: Request) -> Response:
    user_id = _owner(request, _queried(request).get("user_id"))
    row = await api.store.read(keypairs.get, user_id, request.params["keypair"])
    render = SHOWN.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"keypair": render(row, None)})


async def delete(api: Api, request: Request) -> Response:
    user_id = _owner(request, _queried(request).get("user_id"))
    await api.store.run(keypairs.remove, user_id, request.params["keypair"])
    return Response(204 if request.version >= TYPES_SINCE else 202)
