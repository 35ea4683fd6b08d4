"""RBAC policies: which other projects may use a network, and as what."""

from __future__ import annotations

from typing import Annotated

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import one_of, text
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import PROJECT, UUID
from droveway.api.network.listing import Filter, Resource, listed, made, shown
from droveway.api.wiring import Api
from droveway.store.engine.transaction import Tx
from droveway.store.network import networks, rbac
from droveway.store.network.rbac import ALL, COLUMNS, Policy

TYPE = "network"
POLICIES = Resource(
    "rbac_policy",
    "rbac_policies",
    fields.RBAC_POLICY,
    {
        "id": Filter("id"),
        "project_id": Filter("project_id"),
        "tenant_id": Filter("project_id"),
        "object_id": Filter("object_id"),
        "object_type": Filter("", lambda name, value: ("object_type", value), is_column=False),
        "action": Filter("action"),
        "target_tenant": Filter("target"),
    },
    rbac.find,
    has_tags=False,
)
TARGET = text(64, 1)


class NewPolicyBody(Body, frozen=True, kw_only=True):
    """Another project, or `*` for all, may use that network."""

    object_type: Annotated[str, one_of((TYPE,))]
    object_id: Annotated[str, UUID]
    action: Annotated[str, one_of(tuple(COLUMNS))]
    target_tenant: Annotated[str, TARGET]
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""


class ChangedPolicy(Body, frozen=True, kw_only=True):
    """Another project instead."""

    target_tenant: Annotated[str, TARGET]


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, POLICIES)


async def show(api: Api, request: Request) -> Response:
    return shown(request, POLICIES, await api.store.read(rbac.get, request.params["id"], request.scope))


def _check_target(request: Request, target: str, action: str) -> None:
    if target == ALL and request.scope is not None:
        policy.refuse(action, "target_tenant")


@takes(NewPolicyBody, "rbac_policy")
async def create(api: Api, request: Request, given: NewPolicyBody) -> Response:
    project_id = policy.project_of(request, given, "RBAC policies")
    _check_target(request, given.target_tenant, "create_rbac_policy")

    def write(tx: Tx) -> Policy:
        network = networks.row_of(tx, given.object_id, request.scope)
        policy.own(request, network, "create_rbac_policy")
        asked = (given.object_id, project_id, given.action, given.target_tenant)
        return rbac.create(tx, *asked, api.settings.network.quotas)

    return made(request, POLICIES, [await api.store.run(write)], are_several=False)


@takes(ChangedPolicy, "rbac_policy")
async def update(api: Api, request: Request, given: ChangedPolicy) -> Response:
    _check_target(request, given.target_tenant, "update_rbac_policy")
    changed = await api.store.run(rbac.retarget, request.params["id"], given.target_tenant, request.scope)
    return shown(request, POLICIES, changed)


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(rbac.remove, request.params["id"], request.scope)
    return Response(204)
