"""`POST …/action`: the body is an object with one member, which names what is to be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from droveway.api.http.bodies import Form, Handler, RequestBody, described
from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.policy import Need, refusal


class Action(NamedTuple):
    """`perform` gets what `form` made of the member's value; or None where that is null and `may_be_null`. `since`,
    `until`: the microversions that have it."""

    perform: Callable[[Api, Request, Any], Awaitable[Response]]
    form: Form
    need: Need
    until: int = FOREVER
    since: int = 1
    may_be_null: bool = False


def dispatch(actions: Mapping[str, Action], says: str, major: int = 2) -> Handler:
    """The handler of these actions; `says` describes it. `major`: of the microversions of their service."""
    bodies = {name: RequestBody(one.form, name) for name, one in actions.items()}

    async def action(api: Api, request: Request) -> Response:
        body = await request.json(api.settings.max_body_bytes)
        if not isinstance(body, dict) or len(body) != 1:
            raise BadRequest("The body must be an object with one member, named by the action.")
        name = next(iter(body))
        wanted = actions.get(name)
        if wanted is None:
            raise BadRequest(f"There is no such action: {name[:64]}; there is {', '.join(actions)}.")
        if request.version > wanted.until:
            raise NotFound(f"There is no action {name} at this microversion.")
        reason = refusal(wanted.need, request.caller)
        if reason is not None:
            raise Forbidden(reason)
        if request.version < wanted.since:
            raise BadRequest(
                f"There is no such action: {name}; it is there from microversion {major}.{wanted.since} on."
            )
        says_nothing = wanted.may_be_null and body[name] is None
        given = None if says_nothing else bodies[name].read(body, request.version)
        return await wanted.perform(api, request, given)

    action.__doc__ = says
    return described(action, action, RequestBody(None, actions=actions))
