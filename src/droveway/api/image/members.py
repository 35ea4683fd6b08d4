"""`/images/{id}/members`: the projects with which an image is shared. Its owner adds and removes them, each says for
itself whether it accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import one_of, text
from droveway.api.http.render import seconds
from droveway.api.http.request import Request, Response
from droveway.api.image.images import image_id_of
from droveway.api.wiring import Api
from droveway.domain.faults import Forbidden, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.image import images, members
from droveway.store.rows import ImageMemberRow, ImageRow

SCHEMA = {
    "name": "member",
    "properties": {
        name: {"type": "string", **({"enum": list(members.STATUSES)} if name == "status" else {})}
        for name in ("image_id", "member_id", "status", "created_at", "updated_at", "schema")
    },
}
LIST_SCHEMA = {
    "name": "members",
    "properties": {"members": {"type": "array", "items": SCHEMA}, "schema": {"type": "string"}},
}


class NewMember(Body, frozen=True):
    member: Annotated[str, text(255, 1)]


class Answer(Body, frozen=True):
    status: Annotated[str, one_of(members.STATUSES)]


def _body(row: ImageMemberRow) -> dict[str, Any]:
    return {
        "image_id": row["image_id"],
        "member_id": row["member"],
        "status": row["status"],
        "created_at": seconds(row["created_at_us"]),
        "updated_at": seconds(row["updated_at_us"]),
        "schema": "/v2/schemas/member",
    }


def _shared(tx: Tx, request: Request) -> ImageRow:
    row = images.get(tx, image_id_of(request), request.scope)
    if row["visibility"] != "shared":
        raise Forbidden(f"Only shared images have members; this one is {row['visibility']}.")
    return row


def _is_owner(request: Request, row: ImageRow) -> bool:
    return request.scope in (None, row["project_id"])


def _own(tx: Tx, request: Request) -> ImageRow:
    row = _shared(tx, request)
    if not _is_owner(request, row):
        raise Forbidden(f"Only the owner of the image {row['id']} changes with whom it is shared.")
    return row


async def listing(api: Api, request: Request) -> Response:
    """The owner sees all of them, a member itself alone."""

    def read(tx: Tx) -> Sequence[ImageMemberRow]:
        image = _shared(tx, request)
        found = members.of(tx, image["id"])
        mine = request.caller.project_id
        return found if _is_owner(request, image) else [row for row in found if row["member"] == mine]

    rows = await api.store.read(read)
    return Response(200, {"members": [_body(row) for row in rows], "schema": "/v2/schemas/members"})


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> ImageMemberRow:
        image, member = _shared(tx, request), request.params["member"]
        if not _is_owner(request, image) and member != request.caller.project_id:
            raise NotFound(f"{member[:64]} not found in the member list of the image {image['id']}.")
        return members.get(tx, image["id"], member)

    return Response(200, _body(await api.store.read(read)))


@takes(NewMember)
async def create(api: Api, request: Request, given: NewMember) -> Response:
    def write(tx: Tx) -> ImageMemberRow:
        return members.add(tx, _own(tx, request)["id"], given.member)

    return Response(200, _body(await api.store.run(write)))


@takes(Answer)
async def update(api: Api, request: Request, given: Answer) -> Response:
    def write(tx: Tx) -> ImageMemberRow:
        image, member = _shared(tx, request), request.params["member"]
        members.get(tx, image["id"], member)
        if member != request.caller.project_id and not request.caller.is_admin:
            raise Forbidden(f"Whether the image {image['id']} is accepted, its member {member[:64]} says itself.")
        return members.answer(tx, image["id"], member, given.status)

    return Response(200, _body(await api.store.run(write)))


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: members.remove(tx, _own(tx, request)["id"], request.params["member"]))
    return Response(204)


async def schema(api: Api, request: Request) -> Response:
    return Response(200, SCHEMA)


async def list_schema(api: Api, request: Request) -> Response:
    return Response(200, LIST_SCHEMA)
