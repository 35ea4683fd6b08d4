"""`PUT /servers/{id}`: its name, its description (2.19), its host name (2.90), where it is said to be reached."""

from __future__ import annotations

from typing import Annotated

import msgspec

from droveway.api.compute import fields, server_access, servers
from droveway.api.compute.fields import View
from droveway.api.compute.server_body import DISK_CONFIG, FQDN, HOSTNAME, IPV4, IPV6, SHORT_DESCRIPTION
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import NAME
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.store.compute import server_attributes
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow

UNSET = msgspec.UNSET


class Update(Body, frozen=True):
    """What is given is changed. The host name is the one that the guest is told: it takes it over when it next asks."""

    name: Annotated[str | msgspec.UnsetType, NAME] = UNSET
    description: Annotated[str | msgspec.UnsetType | None, SHORT_DESCRIPTION.since(19)] = UNSET
    hostname: Annotated[str | msgspec.UnsetType, HOSTNAME.since(90).until(93), FQDN.since(94)] = UNSET
    access_ipv4: Annotated[str | msgspec.UnsetType, IPV4] = msgspec.field(default=UNSET, name="accessIPv4")
    access_ipv6: Annotated[str | msgspec.UnsetType, IPV6] = msgspec.field(default=UNSET, name="accessIPv6")
    auto_disk_config: Annotated[bool | msgspec.UnsetType, DISK_CONFIG] = msgspec.field(
        default=UNSET, name="OS-DCF:diskConfig"
    )


@takes(Update, "server")
async def update(api: Api, request: Request, given: Update) -> Response:
    """A lock is no hindrance, nor is it with Nova."""
    changed = {name: value for name in given.__struct_fields__ if (value := getattr(given, name)) is not msgspec.UNSET}

    def write(tx: Tx) -> tuple[InstanceRow, View]:
        row = server_access.visible(tx, request)
        server_attributes.change(tx, row["id"], **changed)
        row = server_access.visible(tx, request)
        return row, servers.view_of(tx, api, request, [row])

    row, view = await api.store.run(write)
    render = fields.SERVER_UPDATE.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"server": render(row, view)})
