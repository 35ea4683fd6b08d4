"""The whole API on one page (Block Storage on its own): method, path, handler, what the caller needs, from which
microversion to which.

A path that is not here is a 404: what is not built is not advertised either. Admins reach every project's servers by
id; everyone else's queries are bound to the project of the token.

More than 400 lines because the whole API stands here.
"""

from __future__ import annotations

from types import ModuleType

from droveway.api import discovery, openapi
from droveway.api.compute import (
    aggregates,
    extensions,
    flavors,
    hypervisors,
    image_proxies,
    instance_actions,
    keypairs,
    limits,
    migrations,
    network_proxies,
    os_hosts,
    os_services,
    quotas,
    refused,
    remote_consoles,
    server_actions,
    server_attach,
    server_create,
    server_groups,
    server_insight,
    server_interfaces,
    server_metadata,
    server_tags,
    server_topology,
    server_update,
    server_volumes,
    servers,
    usage,
    usage_audits,
    zones,
)
from droveway.api.compute import unbuilt_lists as nothing
from droveway.api.consoles import pages
from droveway.api.http.request import Request, Response
from droveway.api.http.router import Route
from droveway.api.identity import (
    application_credentials,
    assignments,
    catalog,
    credentials,
    domains,
    groups,
    projects,
    roles,
    signed,
    tokens,
)
from droveway.api.identity import (
    users as identity_users,
)
from droveway.api.image import glance, host_images, images, members, metadefs, uploads
from droveway.api.network import (
    discovery as network_discovery,
)
from droveway.api.network import (
    floatingips,
    networks,
    ports,
    rbac_policies,
    routers,
    security_groups,
    subnetpools,
    subnets,
    tags,
    topologies,
)
from droveway.api.network import (
    quotas as network_quotas,
)
from droveway.api.own import (
    audit,
    certificates,
    hosts,
    image_quotas,
    joining,
    liveness,
    metrics,
    migration_plans,
    operations,
    placements,
    tasks,
    users,
    volume_placements,
)
from droveway.api.own import migrations as own_migrations
from droveway.api.placement import candidates as placement_candidates
from droveway.api.placement import consumers as placement_consumers
from droveway.api.placement import names as placement_names
from droveway.api.placement import providers as placement_providers
from droveway.api.volume import versions as volume_versions
from droveway.api.volume.routes import VOLUME_ROUTES
from droveway.api.wiring import Api
from droveway.domain.policy import Need

PUBLIC, TOKEN, READER, MEMBER, ADMIN = Need.PUBLIC, Need.TOKEN, Need.READER, Need.MEMBER, Need.ADMIN
MANAGER = Need.MANAGER
IDENTITY_READER, IDENTITY_MANAGER = Need.IDENTITY_READER, Need.IDENTITY_MANAGER
IDENTITY_AUDITOR, IDENTITY_ADMIN = Need.IDENTITY_AUDITOR, Need.IDENTITY_ADMIN
SERVICE = Need.SERVICE
OWNER, USER_READER, USER_ADMIN = Need.OWNER, Need.USER_READER, Need.USER_ADMIN

V3 = "/identity/v3"
IMG = "/image/v2"
VOL = "/volume/v3"
NOVA = "/compute/v2.1"
NET = "/network/v2.0"
PLC = "/placement"
RPS = PLC + "/resource_providers"
OWN = "/droveway/v1"


def _of(path: str, handlers: ModuleType) -> tuple[Route, ...]:
    """The five calls of a resource of Networking, and those of its tags."""
    tagged = tags.calls(path)
    here = f"{NET}/{path}"
    return (
        Route("GET", here, handlers.listing, READER),
        Route("POST", here, handlers.create, MEMBER),
        Route("GET", here + "/{id}", handlers.show, READER),
        Route("PUT", here + "/{id}", handlers.update, MEMBER),
        Route("DELETE", here + "/{id}", handlers.delete, MEMBER),
        Route("GET", here + "/{id}/tags", tagged.listing, READER),
        Route("POST", here + "/{id}/tags", tagged.extend, MEMBER),
        Route("PUT", here + "/{id}/tags", tagged.replace, MEMBER),
        Route("DELETE", here + "/{id}/tags", tagged.clear, MEMBER),
        Route("GET", here + "/{id}/tags/{tag}", tagged.show, READER),
        Route("PUT", here + "/{id}/tags/{tag}", tagged.add, MEMBER),
        Route("DELETE", here + "/{id}/tags/{tag}", tagged.remove, MEMBER),
    )


def _held(place: str, end: str = "", read: Need = IDENTITY_READER, write: Need = IDENTITY_MANAGER) -> tuple[Route, ...]:
    """The roles that users and groups have in a place; `inherited_to_projects`: in what is below it."""
    found = []
    for who in ("users/{user_id}", "groups/{group_id}"):
        here = f"{place}/{who}/roles"
        found += [
            Route("GET", f"{here}{end}", assignments.roles_of, read),
            Route("GET", here + "/{role_id}" + end, assignments.check, read),  # and HEAD
            Route("PUT", here + "/{role_id}" + end, assignments.grant, write),
            Route("DELETE", here + "/{role_id}" + end, assignments.revoke, write),
        ]
    return tuple(found)


async def show_document(api: Api, request: Request) -> Response:
    """This table as an OpenAPI document."""
    return Response(200, openapi.encoded(ROUTES))


# fmt: off
ROUTES = (
    # -- who is here --------------------------------------------------------------------------------------------------
    Route("GET",    "/", discovery.root, PUBLIC),
    Route("GET",    "/identity", discovery.identity_versions, PUBLIC),
    Route("GET",    V3, discovery.identity_version, PUBLIC),
    Route("GET",    "/compute", discovery.compute_versions, PUBLIC),
    Route("GET",    NOVA, discovery.compute_version, PUBLIC),
    Route("GET",    "/image", discovery.image_versions, PUBLIC),
    Route("GET",    "/image/versions", discovery.image_versions_list, PUBLIC),
    Route("GET",    "/volume", volume_versions.versions, PUBLIC),
    Route("GET",    VOL, volume_versions.version, PUBLIC),
    Route("GET",    "/network", network_discovery.versions, PUBLIC),
    Route("GET",    NET, network_discovery.version, PUBLIC),
    Route("GET",    PLC, discovery.placement_version, PUBLIC),
    Route("GET",    "/metrics", metrics.show, PUBLIC),

    # -- identity v3 --------------------------------------------------------------------------------------------------
    Route("POST",   V3 + "/auth/tokens", tokens.issue, PUBLIC),
    Route("GET",    V3 + "/auth/tokens", tokens.show, TOKEN),  # and HEAD
    Route("DELETE", V3 + "/auth/tokens", tokens.revoke, TOKEN),
    Route("POST",   V3 + "/ec2tokens", signed.ec2_token, SERVICE),
    Route("POST",   V3 + "/s3tokens", signed.s3_token, SERVICE),
    Route("GET",    V3 + "/auth/catalog", tokens.show_catalog, TOKEN),
    Route("GET",    V3 + "/auth/projects", projects.list_own, TOKEN),
    Route("GET",    V3 + "/auth/domains", domains.list_own, TOKEN),
    Route("GET",    V3 + "/auth/system", domains.list_system, TOKEN),
    Route("GET",    V3 + "/domains", domains.list_all, IDENTITY_READER),
    Route("POST",   V3 + "/domains", domains.create, IDENTITY_ADMIN),
    Route("GET",    V3 + "/domains/{id}", domains.show, TOKEN),
    Route("PATCH",  V3 + "/domains/{id}", domains.update, IDENTITY_ADMIN),
    Route("DELETE", V3 + "/domains/{id}", domains.delete, IDENTITY_ADMIN),
    Route("GET",    V3 + "/projects", projects.list_all, IDENTITY_READER),
    Route("POST",   V3 + "/projects", projects.create, IDENTITY_MANAGER),
    Route("GET",    V3 + "/projects/{id}", projects.show, TOKEN),
    Route("PATCH",  V3 + "/projects/{id}", projects.update, IDENTITY_MANAGER),
    Route("DELETE", V3 + "/projects/{id}", projects.delete, IDENTITY_MANAGER),
    Route("GET",    V3 + "/projects/{id}/tags", projects.list_tags, TOKEN),
    Route("PUT",    V3 + "/projects/{id}/tags", projects.replace_tags, IDENTITY_MANAGER),
    Route("DELETE", V3 + "/projects/{id}/tags", projects.clear_tags, IDENTITY_MANAGER),
    Route("GET",    V3 + "/projects/{id}/tags/{tag}", projects.has_tag, TOKEN),  # and HEAD
    Route("PUT",    V3 + "/projects/{id}/tags/{tag}", projects.add_tag, IDENTITY_MANAGER),
    Route("DELETE", V3 + "/projects/{id}/tags/{tag}", projects.remove_tag, IDENTITY_MANAGER),
    Route("GET",    V3 + "/users", identity_users.list_all, IDENTITY_READER),
    Route("POST",   V3 + "/users", identity_users.create, IDENTITY_MANAGER),
    Route("GET",    V3 + "/users/{user_id}", identity_users.show, USER_READER),
    Route("PATCH",  V3 + "/users/{user_id}", identity_users.update, IDENTITY_MANAGER),
    Route("DELETE", V3 + "/users/{user_id}", identity_users.delete, IDENTITY_MANAGER),
    Route("POST",   V3 + "/users/{user_id}/password", identity_users.change_password, PUBLIC),  # asks the old one
    Route("GET",    V3 + "/users/{user_id}/projects", projects.list_of_user, USER_READER),
    Route("GET",    V3 + "/users/{user_id}/groups", groups.list_of_user, USER_READER),
    Route("GET",    V3 + "/groups", groups.list_all, IDENTITY_READER),
    Route("POST",   V3 + "/groups", groups.create, IDENTITY_MANAGER),
    Route("GET",    V3 + "/groups/{id}", groups.show, IDENTITY_READER),
    Route("PATCH",  V3 + "/groups/{id}", groups.update, IDENTITY_MANAGER),
    Route("DELETE", V3 + "/groups/{id}", groups.delete, IDENTITY_MANAGER),
    Route("GET",    V3 + "/groups/{id}/users", groups.list_members, IDENTITY_READER),
    Route("GET",    V3 + "/groups/{id}/users/{user_id}", groups.has_member, IDENTITY_READER),
    Route("PUT",    V3 + "/groups/{id}/users/{user_id}", groups.add_member, IDENTITY_MANAGER),
    Route("DELETE", V3 + "/groups/{id}/users/{user_id}", groups.remove_member, IDENTITY_MANAGER),

    # -- identity v3: roles, and who has them where -------------------------------------------------------------------
    Route("GET",    V3 + "/roles", roles.list_all, IDENTITY_READER),
    Route("POST",   V3 + "/roles", roles.create, IDENTITY_ADMIN),
    Route("GET",    V3 + "/roles/{id}", roles.show, IDENTITY_READER),
    Route("PATCH",  V3 + "/roles/{id}", roles.update, IDENTITY_ADMIN),
    Route("DELETE", V3 + "/roles/{id}", roles.delete, IDENTITY_ADMIN),
    Route("GET",    V3 + "/roles/{id}/implies", roles.list_implied, IDENTITY_READER),
    Route("GET",    V3 + "/roles/{id}/implies/{implied_id}", roles.show_implied, IDENTITY_READER),
    Route("PUT",    V3 + "/roles/{id}/implies/{implied_id}", roles.imply, IDENTITY_ADMIN),
    Route("DELETE", V3 + "/roles/{id}/implies/{implied_id}", roles.imply_no_longer, IDENTITY_ADMIN),
    Route("GET",    V3 + "/role_inferences", roles.list_inferences, IDENTITY_READER),
    Route("GET",    V3 + "/role_assignments", assignments.listing, TOKEN),  # one's own, at the least
    *_held(V3 + "/projects/{id}"),
    *_held(V3 + "/domains/{id}"),
    *_held(V3 + "/OS-INHERIT/projects/{id}", "/inherited_to_projects"),
    *_held(V3 + "/OS-INHERIT/domains/{id}", "/inherited_to_projects"),
    *_held(V3 + "/system", read=IDENTITY_AUDITOR, write=IDENTITY_ADMIN),

    # -- identity v3: keys, and the catalog ---------------------------------------------------------------------------
    Route("GET",    V3 + "/users/{user_id}/application_credentials", application_credentials.listing, USER_READER),
    Route("POST",   V3 + "/users/{user_id}/application_credentials", application_credentials.create, OWNER),
    Route("GET",    V3 + "/users/{user_id}/application_credentials/{id}", application_credentials.show, USER_READER),
    Route("DELETE", V3 + "/users/{user_id}/application_credentials/{id}", application_credentials.delete, USER_ADMIN),
    Route("GET",    V3 + "/users/{user_id}/access_rules", application_credentials.list_access_rules, USER_READER),
    Route("GET",    V3 + "/users/{user_id}/credentials/OS-EC2", credentials.list_ec2, USER_ADMIN),
    Route("POST",   V3 + "/users/{user_id}/credentials/OS-EC2", credentials.create_ec2, USER_ADMIN),
    Route("GET",    V3 + "/users/{user_id}/credentials/OS-EC2/{access}", credentials.show_ec2, USER_ADMIN),
    Route("DELETE", V3 + "/users/{user_id}/credentials/OS-EC2/{access}", credentials.delete_ec2, USER_ADMIN),
    Route("GET",    V3 + "/credentials", credentials.listing, TOKEN),  # one's own, without the role admin
    Route("POST",   V3 + "/credentials", credentials.create, TOKEN),
    Route("GET",    V3 + "/credentials/{id}", credentials.show, TOKEN),
    Route("PATCH",  V3 + "/credentials/{id}", credentials.update, TOKEN),
    Route("DELETE", V3 + "/credentials/{id}", credentials.delete, TOKEN),
    Route("GET",    V3 + "/regions", catalog.list_regions, TOKEN),
    Route("POST",   V3 + "/regions", catalog.create_region, IDENTITY_ADMIN),
    Route("GET",    V3 + "/regions/{id}", catalog.show_region, TOKEN),
    Route("PUT",    V3 + "/regions/{id}", catalog.create_named_region, IDENTITY_ADMIN),
    Route("PATCH",  V3 + "/regions/{id}", catalog.update_region, IDENTITY_ADMIN),
    Route("DELETE", V3 + "/regions/{id}", catalog.delete_region, IDENTITY_ADMIN),
    Route("GET",    V3 + "/services", catalog.list_services, IDENTITY_AUDITOR),
    Route("POST",   V3 + "/services", catalog.create_service, IDENTITY_ADMIN),
    Route("GET",    V3 + "/services/{id}", catalog.show_service, IDENTITY_AUDITOR),
    Route("PATCH",  V3 + "/services/{id}", catalog.update_service, IDENTITY_ADMIN),
    Route("DELETE", V3 + "/services/{id}", catalog.delete_service, IDENTITY_ADMIN),
    Route("GET",    V3 + "/endpoints", catalog.list_endpoints, IDENTITY_AUDITOR),
    Route("POST",   V3 + "/endpoints", catalog.create_endpoint, IDENTITY_ADMIN),
    Route("GET",    V3 + "/endpoints/{id}", catalog.show_endpoint, IDENTITY_AUDITOR),
    Route("PATCH",  V3 + "/endpoints/{id}", catalog.update_endpoint, IDENTITY_ADMIN),
    Route("DELETE", V3 + "/endpoints/{id}", catalog.delete_endpoint, IDENTITY_ADMIN),

    # -- image v2 -----------------------------------------------------------------------------------------------------
    Route("GET",    IMG + "/images", images.listing, READER),
    Route("POST",   IMG + "/images", images.create, MEMBER),
    Route("GET",    IMG + "/images/{id}", images.show, READER),
    Route("PATCH",  IMG + "/images/{id}", images.patch, MEMBER),
    Route("DELETE", IMG + "/images/{id}", images.delete, MEMBER),
    Route("PUT",    IMG + "/images/{id}/file", uploads.upload, MEMBER),
    Route("GET",    IMG + "/images/{id}/file", uploads.download, READER),
    Route("PUT",    IMG + "/images/{id}/tags/{tag}", images.add_tag, MEMBER),
    Route("DELETE", IMG + "/images/{id}/tags/{tag}", images.remove_tag, MEMBER),
    Route("POST",   IMG + "/images/{id}/actions/deactivate", images.deactivate, ADMIN),
    Route("POST",   IMG + "/images/{id}/actions/reactivate", images.reactivate, ADMIN),
    Route("GET",    IMG + "/images/{id}/members", members.listing, READER),
    Route("POST",   IMG + "/images/{id}/members", members.create, MEMBER),
    Route("GET",    IMG + "/images/{id}/members/{member}", members.show, READER),
    Route("PUT",    IMG + "/images/{id}/members/{member}", members.update, MEMBER),
    Route("DELETE", IMG + "/images/{id}/members/{member}", members.delete, MEMBER),
    Route("PUT",    IMG + "/images/{id}/stage", glance.refuse_import, MEMBER),
    Route("POST",   IMG + "/images/{id}/import", glance.refuse_import, MEMBER),
    Route("GET",    IMG + "/images/{id}/tasks", glance.tasks_of_image, READER),
    Route("GET",    IMG + "/info/import", glance.import_info, READER),
    Route("GET",    IMG + "/info/stores", glance.stores, READER),
    Route("GET",    IMG + "/info/stores/detail", glance.stores_detail, ADMIN),
    Route("GET",    IMG + "/tasks", glance.tasks, ADMIN),
    Route("POST",   IMG + "/tasks", glance.refuse_task, ADMIN),
    Route("GET",    IMG + "/tasks/{task}", glance.show_task, ADMIN),
    Route("GET",    IMG + "/cache", glance.cache, ADMIN),
    Route("DELETE", IMG + "/cache", glance.clear_cache, ADMIN),
    Route("PUT",    IMG + "/cache/{id}", glance.refuse_cached, ADMIN),
    Route("DELETE", IMG + "/cache/{id}", glance.clear_cache, ADMIN),
    Route("GET",    IMG + "/metadefs/namespaces", metadefs.list_namespaces, READER),
    Route("POST",   IMG + "/metadefs/namespaces", metadefs.refuse, ADMIN),
    Route("GET",    IMG + "/metadefs/namespaces/{namespace}", metadefs.show_namespace, READER),
    Route("PUT",    IMG + "/metadefs/namespaces/{namespace}", metadefs.refuse, ADMIN),
    Route("DELETE", IMG + "/metadefs/namespaces/{namespace}", metadefs.refuse, ADMIN),
    Route("GET",    IMG + "/metadefs/namespaces/{namespace}/properties", metadefs.list_properties, READER),
    Route("GET",    IMG + "/metadefs/namespaces/{namespace}/properties/{name}", metadefs.show_property, READER),
    Route("GET",    IMG + "/metadefs/namespaces/{namespace}/objects", metadefs.list_objects, READER),
    Route("GET",    IMG + "/metadefs/namespaces/{namespace}/tags", metadefs.list_tags, READER),
    Route("GET",    IMG + "/metadefs/namespaces/{namespace}/resource_types", metadefs.list_associations, READER),
    Route("GET",    IMG + "/metadefs/resource_types", metadefs.list_resource_types, READER),
    Route("GET",    IMG + "/info/usage", image_quotas.usage, READER),
    Route("GET",    IMG + "/schemas/image", images.schema, TOKEN),
    Route("GET",    IMG + "/schemas/images", images.list_schema, TOKEN),
    Route("GET",    IMG + "/schemas/member", members.schema, TOKEN),
    Route("GET",    IMG + "/schemas/members", members.list_schema, TOKEN),
    Route("GET",    IMG + "/schemas/task", glance.task_schema, TOKEN),
    Route("GET",    IMG + "/schemas/tasks", glance.tasks_schema, TOKEN),
    Route("GET",    IMG + "/schemas/metadefs/{name}", metadefs.schema, TOKEN),

    # -- compute: servers ---------------------------------------------------------------------------------------------
    Route("GET",    NOVA + "/servers", servers.listing, READER),
    Route("GET",    NOVA + "/servers/detail", servers.detail, READER),
    Route("POST",   NOVA + "/servers", server_create.create, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}", servers.show, READER),
    Route("PUT",    NOVA + "/servers/{server_id}", server_update.update, MEMBER),
    Route("DELETE", NOVA + "/servers/{server_id}", servers.delete, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/metadata", server_metadata.listing, READER),
    Route("POST",   NOVA + "/servers/{server_id}/metadata", server_metadata.extend, MEMBER),
    Route("PUT",    NOVA + "/servers/{server_id}/metadata", server_metadata.replace, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/metadata/{key}", server_metadata.show_item, READER),
    Route("PUT",    NOVA + "/servers/{server_id}/metadata/{key}", server_metadata.set_item, MEMBER),
    Route("DELETE", NOVA + "/servers/{server_id}/metadata/{key}", server_metadata.remove_item, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/tags", server_tags.listing, READER, 26),
    Route("PUT",    NOVA + "/servers/{server_id}/tags", server_tags.replace, MEMBER, 26),
    Route("DELETE", NOVA + "/servers/{server_id}/tags", server_tags.clear, MEMBER, 26),
    Route("GET",    NOVA + "/servers/{server_id}/tags/{tag}", server_tags.show, READER, 26),
    Route("PUT",    NOVA + "/servers/{server_id}/tags/{tag}", server_tags.add, MEMBER, 26),
    Route("DELETE", NOVA + "/servers/{server_id}/tags/{tag}", server_tags.remove, MEMBER, 26),
    Route("POST",   NOVA + "/servers/{server_id}/action", server_actions.action, READER),  # each has its own need
    Route("POST",   NOVA + "/servers/{server_id}/remote-consoles", remote_consoles.create, MEMBER, 6),
    Route("GET",    NOVA + "/os-console-auth-tokens/{console_token}", remote_consoles.show_token, ADMIN),
    Route("GET",    NOVA + "/servers/{server_id}/migrations", migrations.of_server, MANAGER, 23),
    Route("GET",    NOVA + "/servers/{server_id}/migrations/{migration_id}", migrations.of_server_show, ADMIN, 23),
    Route("DELETE", NOVA + "/servers/{server_id}/migrations/{migration_id}", migrations.abort, MANAGER, 24),
    Route("POST",   NOVA + "/servers/{server_id}/migrations/{migration_id}/action", migrations.action, MANAGER, 22),
    Route("GET",    NOVA + "/os-migrations", migrations.listing, MANAGER),

    Route("GET",    NOVA + "/servers/{server_id}/diagnostics", server_insight.diagnostics, ADMIN),
    Route("GET",    NOVA + "/servers/{server_id}/os-server-password", server_insight.show_password, READER),
    Route("DELETE", NOVA + "/servers/{server_id}/os-server-password", server_insight.clear_password, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/os-instance-actions", instance_actions.listing, READER),
    Route("GET",    NOVA + "/servers/{server_id}/os-instance-actions/{request_id}", instance_actions.show, READER),
    Route("GET",    NOVA + "/servers/{server_id}/os-volume_attachments", server_volumes.listing, READER),
    Route("POST",   NOVA + "/servers/{server_id}/os-volume_attachments", server_volumes.create, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/os-volume_attachments/{volume_id}", server_volumes.show, READER),
    Route("PUT",    NOVA + "/servers/{server_id}/os-volume_attachments/{volume_id}", server_volumes.update, MEMBER),
    Route("DELETE", NOVA + "/servers/{server_id}/os-volume_attachments/{volume_id}", server_volumes.delete, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/os-security-groups", server_interfaces.list_groups, READER),
    Route("GET",    NOVA + "/servers/{server_id}/os-interface", server_interfaces.listing, READER),
    Route("POST",   NOVA + "/servers/{server_id}/os-interface", server_attach.create, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/os-interface/{port}", server_interfaces.show, READER),
    Route("DELETE", NOVA + "/servers/{server_id}/os-interface/{port}", server_attach.delete, MEMBER),
    Route("GET",    NOVA + "/servers/{server_id}/ips", server_interfaces.list_addresses, READER),
    Route("GET",    NOVA + "/servers/{server_id}/ips/{network}", server_interfaces.show_addresses, READER),
    Route("GET",    NOVA + "/servers/{server_id}/topology", server_topology.show, READER, 78),
    Route("GET",    NOVA + "/servers/{server_id}/shares", nothing.none_of_server("shares"), READER, 97),
    Route("POST",   NOVA + "/servers/{server_id}/shares", refused.attach_share, MEMBER, 97),
    Route("GET",    NOVA + "/servers/{server_id}/shares/{share_id}", refused.show_share, READER, 97),
    Route("DELETE", NOVA + "/servers/{server_id}/shares/{share_id}", refused.show_share, MEMBER, 97),
    Route("POST",   NOVA + "/os-assisted-volume-snapshots", server_volumes.assisted_snapshot, ADMIN),
    Route("DELETE", NOVA + "/os-assisted-volume-snapshots/{snapshot_id}", server_volumes.assisted_snapshot, ADMIN),
    Route("POST",   NOVA + "/os-server-external-events", refused.external_events, ADMIN),
    # the keys are those of the caller: any role in a project will do
    Route("GET",    NOVA + "/os-keypairs", keypairs.listing, READER),
    Route("POST",   NOVA + "/os-keypairs", keypairs.create, READER),
    Route("GET",    NOVA + "/os-keypairs/{keypair}", keypairs.show, READER),
    Route("DELETE", NOVA + "/os-keypairs/{keypair}", keypairs.delete, READER),
    Route("GET",    NOVA + "/os-simple-tenant-usage", usage.listing, ADMIN),
    Route("GET",    NOVA + "/os-simple-tenant-usage/{project_id}", usage.show, READER),
    Route("GET",    NOVA + "/extensions", extensions.listing, READER),
    Route("GET",    NOVA + "/extensions/{alias}", extensions.show, READER),

    # -- compute: flavors ---------------------------------------------------------------------------------------------
    Route("GET",    NOVA + "/flavors", flavors.listing, READER),
    Route("GET",    NOVA + "/flavors/detail", flavors.detail, READER),
    Route("POST",   NOVA + "/flavors", flavors.create, ADMIN),
    Route("GET",    NOVA + "/flavors/{flavor}", flavors.show, READER),
    Route("PUT",    NOVA + "/flavors/{flavor}", flavors.update, ADMIN, 55),
    Route("DELETE", NOVA + "/flavors/{flavor}", flavors.delete, ADMIN),
    Route("GET",    NOVA + "/flavors/{flavor}/os-extra_specs", flavors.list_specs, READER),
    Route("POST",   NOVA + "/flavors/{flavor}/os-extra_specs", flavors.add_specs, ADMIN),
    Route("GET",    NOVA + "/flavors/{flavor}/os-extra_specs/{key}", flavors.show_spec, READER),
    Route("PUT",    NOVA + "/flavors/{flavor}/os-extra_specs/{key}", flavors.set_spec, ADMIN),
    Route("DELETE", NOVA + "/flavors/{flavor}/os-extra_specs/{key}", flavors.remove_spec, ADMIN),
    Route("GET",    NOVA + "/flavors/{flavor}/os-flavor-access", flavors.list_access, ADMIN),
    Route("POST",   NOVA + "/flavors/{flavor}/action", flavors.action, ADMIN),

    # -- compute: groups, quotas, limits ------------------------------------------------------------------------------
    Route("GET",    NOVA + "/os-server-groups", server_groups.listing, READER),
    Route("POST",   NOVA + "/os-server-groups", server_groups.create, MEMBER),
    Route("GET",    NOVA + "/os-server-groups/{group}", server_groups.show, READER),
    Route("DELETE", NOVA + "/os-server-groups/{group}", server_groups.delete, MEMBER),
    Route("GET",    NOVA + "/os-quota-sets/{target}", quotas.show, READER),
    Route("PUT",    NOVA + "/os-quota-sets/{target}", quotas.update, ADMIN),
    Route("DELETE", NOVA + "/os-quota-sets/{target}", quotas.delete, ADMIN),
    Route("GET",    NOVA + "/os-quota-sets/{target}/defaults", quotas.defaults, READER),
    Route("GET",    NOVA + "/os-quota-sets/{target}/detail", quotas.detail, READER),
    Route("GET",    NOVA + "/os-quota-class-sets/{class}", quotas.show_class, ADMIN),
    Route("PUT",    NOVA + "/os-quota-class-sets/{class}", quotas.update_class, ADMIN),
    Route("GET",    NOVA + "/limits", limits.show, READER),

    # -- compute: services and hosts ----------------------------------------------------------------------------------
    Route("GET",    NOVA + "/os-services", os_services.listing, ADMIN),
    Route("PUT",    NOVA + "/os-services/{service}", os_services.update_by_name, ADMIN, 1, 52),
    Route("PUT",    NOVA + "/os-services/{service}", os_services.update, ADMIN, 53),
    Route("DELETE", NOVA + "/os-services/{service}", os_services.delete, ADMIN),
    Route("GET",    NOVA + "/os-instance_usage_audit_log", usage_audits.listing, ADMIN),
    Route("GET",    NOVA + "/os-instance_usage_audit_log/{before}", usage_audits.show, ADMIN),
    Route("GET",    NOVA + "/os-hosts", os_hosts.listing, ADMIN, 1, 42),
    Route("GET",    NOVA + "/os-hosts/{host}", os_hosts.show, ADMIN, 1, 42),
    Route("GET",    NOVA + "/os-hypervisors", hypervisors.listing, ADMIN),
    Route("GET",    NOVA + "/os-hypervisors/detail", hypervisors.detail, ADMIN),
    Route("GET",    NOVA + "/os-hypervisors/statistics", hypervisors.statistics, ADMIN, 1, 87),
    Route("GET",    NOVA + "/os-hypervisors/{hypervisor}", hypervisors.show, ADMIN),
    Route("GET",    NOVA + "/os-hypervisors/{hypervisor}/uptime", hypervisors.uptime, ADMIN, 1, 87),
    Route("GET",    NOVA + "/os-hypervisors/{hypervisor}/search", hypervisors.search, ADMIN, 1, 52),
    Route("GET",    NOVA + "/os-hypervisors/{hypervisor}/servers", hypervisors.servers, ADMIN, 1, 52),
    Route("GET",    NOVA + "/os-availability-zone", zones.listing, READER),
    Route("GET",    NOVA + "/os-availability-zone/detail", zones.detail, ADMIN),
    Route("GET",    NOVA + "/os-aggregates", aggregates.listing, ADMIN),
    Route("POST",   NOVA + "/os-aggregates", aggregates.create, ADMIN),
    Route("GET",    NOVA + "/os-aggregates/{aggregate}", aggregates.show, ADMIN),
    Route("PUT",    NOVA + "/os-aggregates/{aggregate}", aggregates.update, ADMIN),
    Route("DELETE", NOVA + "/os-aggregates/{aggregate}", aggregates.delete, ADMIN),
    Route("POST",   NOVA + "/os-aggregates/{aggregate}/action", aggregates.action, ADMIN),
    Route("POST",   NOVA + "/os-aggregates/{aggregate}/images", aggregates.images, ADMIN, 81),

    # -- compute: what moved to services of its own; at the versions before that ---------------------------------------
    Route("GET",    NOVA + "/images", image_proxies.listing, READER, 1, 35),
    Route("GET",    NOVA + "/images/detail", image_proxies.detail, READER, 1, 35),
    Route("GET",    NOVA + "/images/{id}", image_proxies.show, READER, 1, 35),
    Route("DELETE", NOVA + "/images/{id}", images.delete, MEMBER, 1, 35),
    Route("GET",    NOVA + "/images/{id}/metadata", image_proxies.show_metadata, READER, 1, 38),
    Route("POST",   NOVA + "/images/{id}/metadata", image_proxies.add_metadata, MEMBER, 1, 38),
    Route("PUT",    NOVA + "/images/{id}/metadata", image_proxies.replace_metadata, MEMBER, 1, 38),
    Route("GET",    NOVA + "/images/{id}/metadata/{key}", image_proxies.show_item, READER, 1, 38),
    Route("PUT",    NOVA + "/images/{id}/metadata/{key}", image_proxies.set_item, MEMBER, 1, 38),
    Route("DELETE", NOVA + "/images/{id}/metadata/{key}", image_proxies.remove_item, MEMBER, 1, 38),
    Route("GET",    NOVA + "/os-floating-ips", network_proxies.list_floating_ips, READER, 1, 35),
    Route("GET",    NOVA + "/os-floating-ips/{id}", network_proxies.show_floating_ip, READER, 1, 35),
    Route("GET",    NOVA + "/os-floating-ip-pools", network_proxies.list_pools, READER, 1, 35),
    Route("GET",    NOVA + "/os-networks", network_proxies.list_networks, READER, 1, 35),
    Route("GET",    NOVA + "/os-networks/{id}", network_proxies.show_network, READER, 1, 35),
    Route("GET",    NOVA + "/os-tenant-networks", network_proxies.list_tenant_networks, READER, 1, 35),
    Route("GET",    NOVA + "/os-tenant-networks/{id}", network_proxies.show_tenant_network, READER, 1, 35),
    Route("GET",    NOVA + "/os-security-groups", network_proxies.list_groups, READER, 1, 35),
    Route("GET",    NOVA + "/os-security-groups/{id}", network_proxies.show_group, READER, 1, 35),
    Route("GET",    NOVA + "/os-agents", nothing.none_of("agents"), ADMIN, 1, 35),

    # -- placement: the same facts, seen as OpenStack's Placement shows them ------------------------------------------
    Route("GET",    RPS, placement_providers.listing, ADMIN, 0),
    Route("GET",    RPS + "/{provider}", placement_providers.show, ADMIN, 0),
    Route("GET",    RPS + "/{provider}/inventories", placement_providers.list_inventories, ADMIN, 0),
    Route("GET",    RPS + "/{provider}/inventories/{resource_class}", placement_providers.show_inventory, ADMIN, 0),
    Route("GET",    RPS + "/{provider}/usages", placement_providers.usages, ADMIN, 0),
    Route("GET",    RPS + "/{provider}/aggregates", placement_providers.aggregates, ADMIN, 1),
    Route("GET",    RPS + "/{provider}/traits", placement_providers.traits, ADMIN, 6),
    Route("GET",    RPS + "/{provider}/allocations", placement_providers.allocations, ADMIN, 0),
    Route("GET",    PLC + "/allocations/{consumer}", placement_consumers.allocations, ADMIN, 0),
    Route("GET",    PLC + "/usages", placement_consumers.usages, ADMIN, 9),
    Route("GET",    PLC + "/resource_classes", placement_names.list_classes, ADMIN, 2),
    Route("GET",    PLC + "/resource_classes/{resource_class}", placement_names.show_class, ADMIN, 2),
    Route("GET",    PLC + "/traits", placement_names.list_traits, ADMIN, 6),
    Route("GET",    PLC + "/traits/{trait}", placement_names.show_trait, ADMIN, 6),
    Route("GET",    PLC + "/allocation_candidates", placement_candidates.listing, ADMIN, 10),
    # what would write is refused with the reason
    Route("POST",   RPS, placement_providers.refuse_provider, ADMIN, 0),
    Route("PUT",    RPS + "/{provider}", placement_providers.refuse_provider, ADMIN, 0),
    Route("DELETE", RPS + "/{provider}", placement_providers.refuse_provider, ADMIN, 0),
    Route("POST",   RPS + "/{provider}/inventories", placement_providers.refuse_inventory, ADMIN, 0),
    Route("PUT",    RPS + "/{provider}/inventories", placement_providers.refuse_inventory, ADMIN, 0),
    Route("DELETE", RPS + "/{provider}/inventories", placement_providers.refuse_inventory, ADMIN, 5),
    Route("PUT",    RPS + "/{provider}/inventories/{resource_class}", placement_providers.refuse_inventory, ADMIN, 0),
    Route("DELETE", RPS + "/{provider}/inventories/{resource_class}", placement_providers.refuse_inventory, ADMIN, 0),
    Route("PUT",    RPS + "/{provider}/aggregates", placement_providers.refuse_aggregates, ADMIN, 1),
    Route("PUT",    RPS + "/{provider}/traits", placement_providers.refuse_traits, ADMIN, 6),
    Route("DELETE", RPS + "/{provider}/traits", placement_providers.refuse_traits, ADMIN, 6),
    Route("POST",   PLC + "/allocations", placement_consumers.refuse, ADMIN, 13),
    Route("PUT",    PLC + "/allocations/{consumer}", placement_consumers.refuse_one, ADMIN, 0),
    Route("DELETE", PLC + "/allocations/{consumer}", placement_consumers.refuse_one, ADMIN, 0),
    Route("POST",   PLC + "/reshaper", placement_consumers.refuse, ADMIN, 30),
    Route("POST",   PLC + "/resource_classes", placement_names.refuse_class, ADMIN, 2),
    Route("PUT",    PLC + "/resource_classes/{resource_class}", placement_names.refuse_class, ADMIN, 2),
    Route("DELETE", PLC + "/resource_classes/{resource_class}", placement_names.refuse_class, ADMIN, 2),
    Route("PUT",    PLC + "/traits/{trait}", placement_names.refuse_trait, ADMIN, 6),
    Route("DELETE", PLC + "/traits/{trait}", placement_names.refuse_trait, ADMIN, 6),

    # -- volume: its table stands in api/volume/routes.py --------------------------------------------------------------
    *VOLUME_ROUTES,

    # -- network v2.0 -------------------------------------------------------------------------------------------------
    *_of("networks", networks),
    *_of("subnets", subnets),
    *_of("subnetpools", subnetpools),
    *_of("ports", ports),
    *_of("security-groups", security_groups),
    *_of("routers", routers),
    *_of("floatingips", floatingips),
    Route("GET",    NET + "/rbac-policies", rbac_policies.listing, READER),
    Route("POST",   NET + "/rbac-policies", rbac_policies.create, MEMBER),
    Route("GET",    NET + "/rbac-policies/{id}", rbac_policies.show, READER),
    Route("PUT",    NET + "/rbac-policies/{id}", rbac_policies.update, MEMBER),
    Route("DELETE", NET + "/rbac-policies/{id}", rbac_policies.delete, MEMBER),
    Route("GET",    NET + "/security-group-rules", security_groups.list_rules, READER),
    Route("POST",   NET + "/security-group-rules", security_groups.create_rule, MEMBER),
    Route("GET",    NET + "/security-group-rules/{id}", security_groups.show_rule, READER),
    Route("DELETE", NET + "/security-group-rules/{id}", security_groups.delete_rule, MEMBER),
    Route("PUT",    NET + "/routers/{id}/add_router_interface", routers.add_interface, MEMBER),
    Route("PUT",    NET + "/routers/{id}/remove_router_interface", routers.remove_interface, MEMBER),
    Route("GET",    NET + "/auto-allocated-topology/{project_id}", topologies.show, MEMBER),
    Route("DELETE", NET + "/auto-allocated-topology/{project_id}", topologies.delete, MEMBER),
    Route("GET",    NET + "/extensions", network_discovery.list_extensions, TOKEN),
    Route("GET",    NET + "/extensions/{alias}", network_discovery.show_extension, TOKEN),
    Route("GET",    NET + "/availability_zones", network_discovery.list_zones, READER),
    Route("GET",    NET + "/agents", network_discovery.list_agents, READER),
    Route("GET",    NET + "/agents/{id}", network_discovery.show_agent, ADMIN),
    Route("GET",    NET + "/quotas", network_quotas.listing, ADMIN),
    Route("GET",    NET + "/quotas/tenant", network_quotas.tenant, READER),
    Route("GET",    NET + "/quotas/{project_id}", network_quotas.show, READER),
    Route("PUT",    NET + "/quotas/{project_id}", network_quotas.update, ADMIN),
    Route("DELETE", NET + "/quotas/{project_id}", network_quotas.delete, ADMIN),
    Route("GET",    NET + "/quotas/{project_id}/default", network_quotas.defaults, READER),
    Route("GET",    NET + "/quotas/{project_id}/details", network_quotas.details, READER),

    # -- consoles, in a browser; the websockets beside them: api/consoles/web.py ---------------------------------------
    Route("GET",    "/console/vnc/{server_id}", pages.screen, PUBLIC),  # the token in the query is the credential
    Route("GET",    "/console/serial/{server_id}", pages.line, PUBLIC),
    *(Route("GET",  "/console/files" + each, pages.give_file, PUBLIC) for each in pages.PATHS),

    # -- droveway's own -----------------------------------------------------------------------------------------------
    Route("GET",    OWN + "/openapi.json", show_document, PUBLIC),
    Route("GET",    OWN + "/sagas", operations.list_sagas, ADMIN),
    Route("GET",    OWN + "/sagas/{saga_id}", operations.show_saga, ADMIN),
    Route("POST",   OWN + "/sagas/{saga_id}/retry", operations.retry_saga, ADMIN),
    Route("POST",   OWN + "/sagas/{saga_id}/cancel", operations.cancel_saga, ADMIN),
    Route("GET",    OWN + "/services", operations.list_services, ADMIN),
    Route("GET",    OWN + "/services/events", liveness.stream, ADMIN),
    Route("GET",    OWN + "/services/{host}/why", liveness.why, ADMIN),
    Route("GET",    OWN + "/hosts", hosts.listing, ADMIN),
    Route("GET",    OWN + "/hosts/{host}", hosts.show, ADMIN),
    Route("DELETE", OWN + "/hosts/{host}", hosts.remove, ADMIN),
    Route("GET",    OWN + "/hosts/{host}/tasks", tasks.list_tasks, ADMIN),
    Route("POST",   OWN + "/hosts/{host}/declare-gone", hosts.declare_gone, ADMIN),
    Route("POST",   OWN + "/hosts/{host}/readmit", hosts.readmit, ADMIN),
    Route("POST",   OWN + "/join-tokens", joining.create_token, ADMIN),
    Route("GET",    OWN + "/join-tokens", joining.list_tokens, ADMIN),
    Route("DELETE", OWN + "/join-tokens/{token}", joining.revoke_token, ADMIN),
    Route("POST",   OWN + "/join", joining.join, PUBLIC),  # the token in the body is the credential
    # the certificate of the host is the credential
    Route("POST",   OWN + "/hosts/{host}/certificate", certificates.renew, PUBLIC),
    Route("POST",   OWN + "/hosts/{host}/revoke-certificates", certificates.revoke_host, ADMIN),
    Route("GET",    OWN + "/certificates", certificates.listing, ADMIN),
    Route("POST",   OWN + "/certificates", certificates.issue, ADMIN),
    Route("POST",   OWN + "/certificates/{serial}/revoke", certificates.revoke, ADMIN),
    Route("GET",    OWN + "/authorities", certificates.authorities, ADMIN),
    Route("POST",   OWN + "/authorities", certificates.add, ADMIN),
    Route("POST",   OWN + "/authorities/{authority}/use", certificates.use, ADMIN),
    Route("POST",   OWN + "/authorities/{authority}/retire", certificates.retire, ADMIN),
    Route("GET",    OWN + "/revoked", certificates.revoked, ADMIN),
    Route("GET",    OWN + "/image-data/{id}", host_images.give, PUBLIC),  # the ticket in its header is the credential
    Route("PUT",    OWN + "/image-data/{id}", host_images.take, PUBLIC),
    Route("GET",    OWN + "/users", users.listing, ADMIN),
    Route("POST",   OWN + "/users", users.create, ADMIN),
    Route("PATCH",  OWN + "/users", users.set_password, ADMIN),
    Route("DELETE", OWN + "/users/{user}", users.delete, ADMIN),
    Route("GET",    OWN + "/image-quotas/{target}", image_quotas.show, ADMIN),
    Route("PATCH",  OWN + "/image-quotas/{target}", image_quotas.update, ADMIN),
    Route("POST",   OWN + "/migrations/plan", migration_plans.plan, ADMIN),
    Route("GET",    OWN + "/migrations/matrix", migration_plans.matrix, ADMIN),
    Route("GET",    OWN + "/migrations/predictions", migration_plans.foreseen, ADMIN),
    Route("GET",    OWN + "/migrations", own_migrations.listing, ADMIN),
    Route("GET",    OWN + "/migrations/{migration}", own_migrations.show, ADMIN),
    Route("GET",    OWN + "/placements", placements.listing, ADMIN),
    Route("POST",   OWN + "/placements/try", placements.attempt, ADMIN),
    Route("GET",    OWN + "/placements/{server_id}", placements.show, ADMIN),
    Route("POST",   OWN + "/volume-placements/try", volume_placements.attempt, ADMIN),
    Route("GET",    OWN + "/volume-placements/{volume_id}", volume_placements.show, ADMIN),
    Route("GET",    OWN + "/aggregates/{name}/cpu-baseline", migration_plans.cpu_baseline, ADMIN),
    Route("GET",    OWN + "/audit", audit.show, ADMIN),
    Route("POST",   OWN + "/audit/repair", audit.repair, ADMIN),
)
# fmt: on
