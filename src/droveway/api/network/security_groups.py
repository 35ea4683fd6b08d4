"""Security groups and their rules. The default group of a project is there as soon as anybody looks."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType, field

from droveway.api.http.bodies import Body, given_in, takes, takes_several
from droveway.api.http.kinds import of, one_of, or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import PROJECT, TAGS, TEXT, UUID, UUID_OR_NULL
from droveway.api.network.listing import NAMED, STANDARD, Filter, Resource, as_null, as_number, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.domain.network import rules
from droveway.domain.network.rules import RuleSpec
from droveway.domain.network_plan import RuleDirection
from droveway.store.engine.transaction import Tx
from droveway.store.network import groups
from droveway.store.network.rows import Group, RuleRow

GROUPS = Resource("security_group", "security_groups", fields.GROUP, NAMED, groups.find)
RULES = Resource(
    "security_group_rule",
    "security_group_rules",
    fields.RULE,
    STANDARD
    | {
        "security_group_id": Filter("group_id"),
        "direction": Filter("direction"),
        "ethertype": Filter("ethertype"),
        "protocol": Filter("protocol", as_null),
        "port_range_min": Filter("port_min", as_number),
        "port_range_max": Filter("port_max", as_number),
        "remote_ip_prefix": Filter("remote_cidr", as_null),
        "remote_group_id": Filter("remote_group_id", as_null),
    },
    groups.find_rules,
    has_tags=False,
)


# -- groups -----------------------------------------------------------------------------------------------------------
class NewGroupBody(Body, frozen=True, kw_only=True):
    """A group, which lets everything out and nothing in."""

    name: Annotated[str, TEXT]
    description: Annotated[str, TEXT] = ""
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()


class ChangedGroup(Body, frozen=True, kw_only=True):
    """What is there of it."""

    name: Annotated[str | UnsetType, TEXT] = UNSET
    description: Annotated[str | UnsetType, TEXT] = UNSET


async def listing(api: Api, request: Request) -> Response:
    await _ensure_default(api, request)
    return await listed(api, request, GROUPS)


async def _ensure_default(api: Api, request: Request) -> None:
    """Of the caller's project; and of one that an administrator asks about is left as it is."""
    project_id = request.caller.project_id
    assert project_id is not None, "the route needs a project"
    if not await api.store.read(groups.has_default, project_id):
        await api.store.run(groups.default_of, project_id)


async def show(api: Api, request: Request) -> Response:
    return shown(request, GROUPS, await api.store.read(groups.get, request.params["id"], request.scope))


@takes_several(NewGroupBody, "security_group", "security_groups")
async def create(api: Api, request: Request, given: Any) -> Response:
    several: list[NewGroupBody] = given if isinstance(given, list) else [given]
    projects = [policy.project_of(request, one, "Security groups") for one in several]

    def write(tx: Tx) -> list[Group]:
        return [
            groups.create(tx, project_id, one.name, one.description, api.settings.network.quotas, one.tags)
            for one, project_id in zip(several, projects, strict=True)
        ]

    return made(request, GROUPS, await api.store.run(write), are_several=isinstance(given, list))


@takes(ChangedGroup, "security_group")
async def update(api: Api, request: Request, given: ChangedGroup) -> Response:
    def write(tx: Tx) -> Group:
        row = groups.row_of(tx, request.params["id"], request.scope)
        return groups.update(tx, row["id"], given_in(given))

    return shown(request, GROUPS, await api.store.run(write))


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        group_id = groups.row_of(tx, request.params["id"], request.scope)["id"]
        groups.remove(tx, group_id, is_admin=request.caller.is_admin)

    await api.store.run(write)
    return Response(204)


# -- rules ------------------------------------------------------------------------------------------------------------
def _protocol(path: str, value: Any) -> str:
    """A name, or a number in either form."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not 0 < len(value) <= 16:
        raise BadRequest(f"Invalid input for {path}: it must be the name of a protocol, or its number.")
    return value


PROTOCOL = or_null(of(_protocol, anyOf=[{"type": "string", "minLength": 1, "maxLength": 16}, {"type": "integer"}]))
PORT = or_null(whole(-1, 1 << 20))  # what is a port, a type or a code is told by the rule


class NewRuleBody(Body, frozen=True, kw_only=True):
    """What a group lets through."""

    group_id: Annotated[str, UUID] = field(name="security_group_id")
    direction: Annotated[str, one_of([one.value for one in RuleDirection])]
    ethertype: Annotated[str | None, or_null(one_of(tuple(rules.VERSIONS)))] = None
    protocol: Annotated[str | None, PROTOCOL] = None
    port_min: Annotated[int | None, PORT] = field(default=None, name="port_range_min")
    port_max: Annotated[int | None, PORT] = field(default=None, name="port_range_max")
    remote_cidr: Annotated[str | None, or_null(TEXT)] = field(default=None, name="remote_ip_prefix")
    remote_group_id: Annotated[str | None, UUID_OR_NULL] = None
    description: Annotated[str | None, or_null(TEXT)] = None
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""


async def list_rules(api: Api, request: Request) -> Response:
    await _ensure_default(api, request)
    return await listed(api, request, RULES)


async def show_rule(api: Api, request: Request) -> Response:
    return shown(request, RULES, await api.store.read(groups.rule, request.params["id"], request.scope))


@takes_several(NewRuleBody, "security_group_rule", "security_group_rules")
async def create_rule(api: Api, request: Request, given: Any) -> Response:
    several: list[NewRuleBody] = given if isinstance(given, list) else [given]
    specs = [rules.checked(_spec(one)) for one in several]
    for one in several:
        policy.project_of(request, one, "Security group rules")

    def write(tx: Tx) -> list[RuleRow]:
        return [
            groups.add_rule(tx, one.group_id, spec, request.scope, api.settings.network.quotas)
            for one, spec in zip(several, specs, strict=True)
        ]

    return made(request, RULES, await api.store.run(write), are_several=isinstance(given, list))


def _spec(given: NewRuleBody) -> RuleSpec:
    return RuleSpec(
        given.direction,
        given.ethertype or rules.IPV4,
        given.protocol,
        None if given.port_min == -1 else given.port_min,
        None if given.port_max == -1 else given.port_max,
        given.remote_cidr or None,
        given.remote_group_id,
        given.description or "",
    )


async def delete_rule(api: Api, request: Request) -> Response:
    await api.store.run(groups.remove_rule, request.params["id"], request.scope)
    return Response(204)
