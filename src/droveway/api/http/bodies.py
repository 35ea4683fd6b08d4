"""Request bodies, each declared once.

A body is a `Body`: a structure whose members say, beside their type, what they take (`Kind`) and from which
microversion to which. `read` checks a decoded body against it, and refuses with one sentence that names the member;
`schema` is the same as JSON Schema, for the OpenAPI document. `@takes` gives a handler its body, and tells the document
of it.

    class NewThing(Body, frozen=True):
        name: Annotated[str, NAME]
        size: Annotated[int, whole(1)] = msgspec.field(default=1, name="OS-X:size")
        note: Annotated[str | None, NOTE.since(19)] = None
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec

from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest

Schema = dict[str, Any]
Reply = Awaitable[Response]
Handler = Callable[[Api, Request], Reply]
JSON_TYPE = "application/json"
NAMES_SHOWN = 5
SEVERAL_MAX = 1000  # objects in one body


@dataclass(frozen=True, slots=True)
class Kind:
    """What a member takes: `read(path, value)` gives the value as handlers want it, or raises; `schema` says the same.
    At microversions outside `first` to `last` it does not hold. `is_needed`: there, the member is required."""

    read: Callable[[str, Any], Any]
    schema: Mapping[str, Any]
    first: int = 0
    last: int = FOREVER
    is_needed: bool = False
    form: type[Body] | None = None  # an object, which is read by its own declaration
    most: int = 0  # above it: a list of at most so many of them, or null

    def since(self, minor: int) -> Kind:
        return replace(self, first=minor)

    def until(self, minor: int) -> Kind:
        return replace(self, last=minor)

    def needed(self) -> Kind:
        return replace(self, is_needed=True)


class Body(msgspec.Struct, frozen=True):
    """An object. `is_open`: members that are not declared are left alone; otherwise they are refused."""

    is_open: ClassVar[bool] = False


Form = type[Body] | Kind
BodyT = TypeVar("BodyT", bound=Body)


def made(name: str, fields: Sequence[tuple[str, Any, Any]]) -> type[Body]:
    """A body from a table of members: each its name, its annotation and its default."""
    form = msgspec.defstruct(name, fields, bases=(Body,), module=__name__, frozen=True)
    assert issubclass(form, Body), "its base"
    return form


# -- reading ----------------------------------------------------------------------------------------------------------
class Member(NamedTuple):
    name: str
    attribute: str
    is_required: bool
    kinds: tuple[Kind, ...]  # of which at most one holds at a microversion


class _Reader(NamedTuple):
    name: str
    attribute: str
    is_required: bool
    read: Callable[[str, Any], Any]


class _Plan(NamedTuple):
    """A body at one microversion."""

    names: frozenset[str]
    readers: tuple[_Reader, ...]


@lru_cache(256)
def members(form: type[Body]) -> tuple[Member, ...]:
    hints = get_type_hints(form, include_extras=True)
    found = []
    for one in msgspec.structs.fields(form):
        hint = hints[one.name]
        kinds = tuple(part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Kind))
        if not kinds:
            kinds = (nested(next(part for part in (hint, *get_args(hint)) if _is_body(part))),)
        found.append(Member(one.encode_name, one.name, one.required, kinds))
    return tuple(found)


def nested(form: type[Body]) -> Kind:
    """Of a member that is an object: only with a bound on its microversions it must be said."""
    return Kind(_of_form, {}, form=form)


def several(form: type[Body], most: int) -> Kind:
    """Of a member that is a list of objects."""
    return Kind(_of_form, {}, form=form, most=most)


def _of_form(path: str, value: Any) -> Any:
    raise AssertionError(f"{path} is read by its own declaration")


def _is_body(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Body)


@lru_cache(4096)
def _plan(form: type[Body], version: int) -> _Plan:
    readers = []
    for member in members(form):
        for kind in member.kinds:
            if kind.first <= version <= kind.last:
                is_required = member.is_required or kind.is_needed
                reads = kind.read if kind.form is None else _nested(kind.form, version, kind.most)
                readers.append(_Reader(member.name, member.attribute, is_required, reads))
    return _Plan(frozenset(one.name for one in readers), tuple(readers))


def _nested(form: type[Body], version: int, most: int) -> Callable[[str, Any], Any]:
    if most:
        return lambda path, value: _each(form, value, path, version, most)
    return lambda path, value: read(form, value, path, version)


def _each(form: type[BodyT], values: Any, path: str, version: int, most: int) -> tuple[BodyT, ...]:
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) > most:
        raise BadRequest(f"Invalid input for {path}: it must be a list of at most {most} objects.")
    return tuple(read(form, value, f"{path}.{number}", version) for number, value in enumerate(values))


def read(form: type[BodyT], value: Any, where: str, version: int) -> BodyT:
    """The body as it was declared. `where` is how sentences call it; empty for the whole. Raises BadRequest, and what
    its kinds raise."""
    shown = where or "the body"
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {shown}: it must be an object.")
    plan = _plan(form, version)
    if not form.is_open and not plan.names.issuperset(value):
        extra = sorted(name for name in value if name not in plan.names)[:NAMES_SHOWN]
        listed = ", ".join(f"'{name[:60]}'" for name in extra)
        raise BadRequest(f"Invalid input for {shown}: additional properties are not allowed ({listed}).")
    given: dict[str, Any] = {}
    prefix = f"{where}." if where else ""
    for one in plan.readers:
        if one.name in value:
            given[one.attribute] = one.read(prefix + one.name, value[one.name])
        elif one.is_required:
            raise BadRequest(f"Invalid input for {shown}: '{one.name}' is a required property.")
    return form(**given)


def given_in(body: Body) -> dict[str, Any]:
    """Those members that are there, by their names."""
    named = ((one.name, getattr(body, one.attribute)) for one in members(type(body)))
    return {name: value for name, value in named if value is not msgspec.UNSET}


# -- as JSON Schema ---------------------------------------------------------------------------------------------------
def schema(form: Form, major: str = "") -> Schema:
    """`major` is that of the microversions which it names: "2."."""
    if isinstance(form, Kind):
        one = dict(form.schema) if form.form is None else schema(form.form, major)
        return {"type": ["array", "null"], "items": one, "maxItems": form.most} if form.most else one
    properties, required = {}, []
    for member in members(form):
        properties[member.name] = _of_member(member, major)
        always = any(kind.is_needed and not kind.first and kind.last == FOREVER for kind in member.kinds)
        if always or (member.is_required and _is_always_there(member)):
            required.append(member.name)
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": form.is_open}
    if form.__doc__ and form.__doc__ != Body.__doc__:
        found["description"] = " ".join(form.__doc__.split())
    return found | ({"required": required} if required else {})


def _is_always_there(member: Member) -> bool:
    return any(not kind.first for kind in member.kinds) and any(kind.last == FOREVER for kind in member.kinds)


def _of_member(member: Member, major: str) -> Schema:
    several = [schema(kind, major) | _noted(kind, member, major) for kind in member.kinds]
    return several[0] if len(several) == 1 else {"anyOf": several}


def _noted(kind: Kind, member: Member, major: str) -> Schema:
    """Where it holds, if not everywhere."""
    notes: dict[str, Any] = {}
    if kind.first:
        notes["min-ver"] = f"{major}{kind.first}"
    if kind.last != FOREVER:
        notes["max-ver"] = f"{major}{kind.last}"
    if notes and (kind.is_needed or member.is_required):
        notes["required"] = True
    return {"x-openstack": notes} if notes else {}


# -- handlers ---------------------------------------------------------------------------------------------------------
class RequestBody(NamedTuple):
    """The body of an operation. `wrapper`: the one member of the object that it stands in; `plural`: that of a list of
    several, which may stand there instead."""

    form: Form | None
    wrapper: str = ""
    media_types: tuple[str, ...] = (JSON_TYPE,)
    actions: Mapping[str, Any] = {}  # of an operation that is one of several, by name: api/http/actions.py
    plural: str = ""

    def read(self, value: Any, version: int) -> Any:
        if self.plural and isinstance(value, dict) and self.plural in value:
            return self._several(_only(value, self.plural), version)
        if self.wrapper:
            value = _only(value, self.wrapper)
        form = self.form
        assert form is not None, "what has actions is read by them"
        if isinstance(form, Kind):
            return form.read(self.wrapper, value)
        return read(form, value, self.wrapper, version)

    def _several(self, values: Any, version: int) -> list[Any]:
        if not isinstance(values, list) or not 0 < len(values) <= SEVERAL_MAX:
            raise BadRequest(f"Invalid input for {self.plural}: it must be a list of 1 to {SEVERAL_MAX} objects.")
        form = self.form
        assert isinstance(form, type), "several of them are objects"
        return [read(form, value, f"{self.plural}.{number}", version) for number, value in enumerate(values)]


def _only(value: Any, name: str) -> Any:
    """The one member of a body that is an object with exactly that member."""
    if not isinstance(value, dict):
        raise BadRequest("Invalid input for the body: it must be an object.")
    extra = sorted(other for other in value if other != name)[:NAMES_SHOWN]
    if extra:
        listed = ", ".join(f"'{other[:60]}'" for other in extra)
        raise BadRequest(f"Invalid input for the body: additional properties are not allowed ({listed}).")
    if name not in value:
        raise BadRequest(f"Invalid input for the body: '{name}' is a required property.")
    return value[name]


def takes(form: type[BodyT], wrapper: str = "") -> Callable[[Callable[[Api, Request, BodyT], Reply]], Handler]:
    """The handler gets the body as its third argument, read before it is called."""
    return _taking(RequestBody(form, wrapper))


def takes_several(
    form: type[BodyT], wrapper: str, plural: str
) -> Callable[[Callable[[Api, Request, Any], Reply]], Handler]:
    """The handler gets one body, or a list of them: whichever was sent."""
    return _taking(RequestBody(form, wrapper, plural=plural))


def takes_kind(kind: Kind, wrapper: str = "") -> Callable[[Callable[[Api, Request, Any], Reply]], Handler]:
    """The same for a body whose members have no names of their own."""
    return _taking(RequestBody(kind, wrapper))


def _taking(body: RequestBody) -> Callable[[Callable[[Api, Request, Any], Reply]], Handler]:
    def wrap(handler: Callable[[Api, Request, Any], Reply]) -> Handler:
        async def reading(api: Api, request: Request) -> Response:
            value = await request.json(api.settings.max_body_bytes)
            return await handler(api, request, body.read(value, request.version))

        return described(reading, handler, body)

    return wrap


def described(handler: Handler, like: Callable[..., Any], body: RequestBody | None) -> Handler:
    """The handler under the name and the words of another one, with what it takes."""
    handler.__name__, handler.__module__, handler.__doc__ = like.__name__, like.__module__, like.__doc__
    handler.__dict__["body"] = body
    return handler


def sends(*media_types: str, schema: Schema) -> Callable[[Handler], Handler]:
    """For a handler that reads its body itself, because it is no plain JSON."""
    return lambda handler: described(
        handler, handler, RequestBody(Kind(lambda _, value: value, schema), "", media_types)
    )


def body_of(handler: Handler) -> RequestBody | None:
    return handler.__dict__.get("body")
