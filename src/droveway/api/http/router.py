"""Finds the route of a request: a tree of path segments, fixed ones before named ones, built once from the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote

from droveway.api.http.faults import NoSuchMethod
from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.domain.policy import Need

Handler = Callable[[Api, Request], Awaitable[Response]]


class Route(NamedTuple):
    """One line of the table in routes.py."""

    method: str
    path: str  # {name} stands for one segment
    handler: Handler
    need: Need
    since: int = 1
    until: int = FOREVER


def refusal(handler: Handler) -> Handler:
    """Marks a handler that always refuses, with the reason: the call is there because clients make it."""
    handler.__dict__["is_refusal"] = True
    return handler


def is_refusal(handler: Handler) -> bool:
    return bool(handler.__dict__.get("is_refusal"))


class _Node:
    __slots__ = ("fixed", "parameter", "routes")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.parameter: tuple[str, _Node] | None = None
        self.routes: dict[str, list[Route]] = {}


Found = tuple[list[Route], dict[str, str]]


class Router:
    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in _segments(route.path):
            if segment.startswith("{"):
                name = segment[1:-1]
                if node.parameter is None:
                    node.parameter = (name, _Node())
                assert node.parameter[0] == name, f"{route.path}: that segment is called {node.parameter[0]} elsewhere"
                node = node.parameter[1]
            else:
                node = node.fixed.setdefault(segment, _Node())
        node.routes.setdefault(route.method, []).append(route)

    def find(self, method: str, path: str) -> Found:
        """The routes of that method and path (they differ in their versions) and the values of its named segments.
        `path` is as it was sent: %2F is a slash within a segment. Raises NotFound, NoSuchMethod."""
        node, values = self._root, {}
        segments = _segments(path)
        for segment in map(unquote, segments) if "%" in path else segments:
            fixed = node.fixed.get(segment)
            if fixed is not None:
                node = fixed
            elif node.parameter is not None:
                values[node.parameter[0]] = segment
                node = node.parameter[1]
            else:
                raise NotFound("The resource could not be found.")
        if not node.routes:
            raise NotFound("The resource could not be found.")
        # HEAD is GET without its body, unless a route says otherwise
        routes = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if routes is None:
            allowed = sorted(node.routes)
            raise NoSuchMethod(f"{method} is not possible here; possible are {', '.join(allowed)}.", allowed)
        return routes, values


def at_version(routes: list[Route], version: int) -> Route:
    """The route that exists at that microversion. Raises NotFound."""
    for route in routes:
        if route.since <= version <= route.until:
            return route
    raise NotFound("The resource could not be found at this microversion.")


def _segments(path: str) -> list[str]:
    """Clients that join an endpoint and a path leave slashes doubled: an empty segment is none."""
    return [segment for segment in path.split("/") if segment]
