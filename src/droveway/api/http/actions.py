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
    """`perform` gets what `form` made of the member's value. `until`: the last microversion that has it."""

    perform: Callable[[Api, Request, Any], Awaitable[Response]]
    form: Form
    need: Need
    until: int = FOREVER


def dispatch(actions: Mapping[str, Action], says: str) -> Handler:
    """The handler of these actions; `says` describes it."""
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
        return await wanted.perform(api, request, bodies[name].read(body, request.version))

    action.__doc__ = says
    return described(action, action, RequestBody(None, actions=actions))
