"""docs/api-support.md: which calls there are, for whom, from which microversion to which, and with which bodies. Made
of the table of routes: `python -m droveway.api.support > docs/api-support.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from droveway.api.http.bodies import Body, Kind, Member, RequestBody, body_of, members
from droveway.api.http.microversions import SERIES
from droveway.api.http.render import FOREVER
from droveway.api.http.router import Route, is_refusal
from droveway.api.openapi import major_of, service_of
from droveway.api.routes import ROUTES

_TITLES = {
    "": "Root",
    "metrics": "Metrics",
    "identity": "Identity v3",
    "image": "Image v2",
    "compute": "Compute v2.1",
    "placement": "Placement",
    "volume": "Volume v3",
    "network": "Network v2.0",
    "console": "Pages of consoles",
    "droveway": "Droveway's own",
}
_HEAD = """# What the API supports

This page is made of the table of routes (`src/droveway/api/routes.py`) and of the bodies that its handlers declare:

    python -m droveway.api.support > docs/api-support.md

A test holds it current. What is not here is answered with 404. The same as an OpenAPI 3.1 document, with the types of
all members: `GET /droveway/v1/openapi.json`. Members in **bold** are required. A member that is not listed is refused
with 400, but for logins, where it is left alone, and images, of which it is a property. Keys of a query that are not
known are refused by compute from microversion 2.75 on; elsewhere they are left alone, unless that service says
otherwise.

*Refused* calls are answered with the reason: they are there because clients make them.
"""


def page() -> str:
    return "".join(_lines(ROUTES))


def _lines(routes: Iterable[Route]) -> Iterator[str]:
    yield _HEAD
    by_service: dict[str, list[Route]] = {}
    for route in routes:
        by_service.setdefault(service_of(route.path), []).append(route)
    for service, title in _TITLES.items():
        several = by_service.pop(service)
        yield f"\n## {title}\n"
        series = SERIES.get(service)
        if series is not None:
            yield f"\nMicroversions {series.minimum_text} to {series.maximum_text}.\n"
        yield "\n| call | microversions | needs | body |\n|---|---|---|---|\n"
        yield from map(_row, several)
    assert not by_service, f"no title for {', '.join(by_service)}"


def _row(route: Route) -> str:
    body = body_of(route.handler)
    shown = "*refused*" if is_refusal(route.handler) else "" if body is None else _body(body, major_of(route))
    return f"| `{route.method} {route.path}` | {_range(route)} | {route.need.value} | {shown} |\n"


def _range(route: Route) -> str:
    series, major = SERIES.get(service_of(route.path)), major_of(route)
    if series is None or (route.since <= series.minimum and route.until == FOREVER):
        return ""
    return _bounds(route.since if route.since > series.minimum else 0, route.until, major)


def _bounds(first: int, last: int, major: str) -> str:
    if last == FOREVER:
        return f"{major}{first} on" if first else ""
    return f"{major}{first} to {major}{last}" if first else f"to {major}{last}"


def _body(body: RequestBody, major: str) -> str:
    if body.actions:
        return "<br>".join(
            f"`{name}` ({one.need.value}{_named(', ', _bounds(0, one.until, major))})"
            + _named(": ", _form(one.form, major))
            for name, one in body.actions.items()
        )
    assert body.form is not None, "a body has a form, or actions"
    inner = _form(body.form, major)
    if body.media_types[0] != "application/json":
        return ", ".join(f"`{kind}`" for kind in body.media_types)
    wrapper = f"`{body.wrapper}` or `{body.plural}`" if body.plural else f"`{body.wrapper}`"
    return f"{wrapper}{_named(': ', inner)}" if body.wrapper else inner


def _named(before: str, text: str) -> str:
    return f"{before}{text}" if text else ""


def _form(form: type[Body] | Kind, major: str) -> str:
    """Its members by name: those that are required in bold, and the microversions of those that were not always
    there."""
    if isinstance(form, Kind):
        if form.form is not None:
            return _form(form.form, major)
        own = form.schema.get("properties", {})
        return ", ".join(f"`{name}`" for name, one in own.items() if not one.get("readOnly"))
    return ", ".join(_member(member, major) for member in members(form))


def _member(member: Member, major: str) -> str:
    name, _, is_required, kinds = member
    spans = [_bounds(kind.first, kind.last, major) for kind in kinds]
    first, last = min(kind.first for kind in kinds), max(kind.last for kind in kinds)
    whole = _bounds(first, last, major)
    needed = [span for kind, span in zip(kinds, spans, strict=True) if kind.is_needed and span and span != whole]
    bold = is_required or any(kind.is_needed for kind in kinds)
    notes = [*([whole] if whole else []), *(f"required {span}" for span in needed)]
    inner = _form(kinds[-1].form, major) if kinds[-1].form is not None else ""
    return (
        (f"**`{name}`**" if bold else f"`{name}`")
        + _named(" ", f"({'; '.join(notes)})" if notes else "")
        + _named(": ", f"{{{inner}}}" if inner else "")
    )


if __name__ == "__main__":
    sys.stdout.write(page())
