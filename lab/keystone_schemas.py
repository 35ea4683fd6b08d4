"""Makes tests/api/keystone_schemas.json.gz of the schemas that Keystone publishes (package `keystone` of PyPI,
Apache-2.0): for calls of Identity those of requests and answers.

    python -m venv keystone && keystone/bin/pip install keystone==30.0.0
    keystone/bin/python lab/keystone_schemas.py

It is run by the environment that has Keystone: its schemas are made of each other and of its options.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "tests" / "api" / "keystone_schemas.json.gz"
# A call: what it takes and what it answers, as `module.name` of its schemas.
CALLS: dict[str, tuple[str, str]] = {
    "GET /users": ("", "identity.user_index_response_body"),
    "POST /users": ("identity.user_create_request", "identity.user_create_response_body"),
    "GET /users/{id}": ("", "identity.user_get_response_body"),
    "PATCH /users/{id}": ("identity.user_update_request", "identity.user_update_response_body"),
    "GET /groups": ("", "identity.group_index_response_body"),
    "POST /groups": ("identity.group_create_request_body", "identity.group_create_response_body"),
    "GET /groups/{id}": ("", "identity.group_get_response_body"),
    "PATCH /groups/{id}": ("identity.group_update_request_body", "identity.group_update_response_body"),
    "GET /projects": ("", "resource.project_index_response_body"),
    "POST /projects": ("resource.project_create_request_body", "resource.project_create_response_body"),
    "GET /projects/{id}": ("", "resource.project_get_response_body"),
    "PATCH /projects/{id}": ("resource.project_update_request_body", "resource.project_update_response_body"),
    "GET /projects/{id}/tags": ("", "resource.tags_response_body"),
    "PUT /projects/{id}/tags": ("resource.tags_update_request_body", "resource.tags_response_body"),
    "GET /domains": ("", "resource.domain_index_response_body"),
    "POST /domains": ("resource.domain_create_request_body", "resource.domain_create_response_body"),
    "GET /domains/{id}": ("", "resource.domain_get_response_body"),
    "PATCH /domains/{id}": ("resource.domain_update_request_body", "resource.domain_update_response_body"),
    "GET /roles": ("", "assignment.roles_index_response_body"),
    "POST /roles": ("assignment.role_create_request_body", "assignment.role_show_response_body"),
    "GET /roles/{id}": ("", "assignment.role_show_response_body"),
    "PATCH /roles/{id}": ("assignment.role_update_request_body", "assignment.role_show_response_body"),
    "GET /role_assignments": ("", "assignment.role_assignments_index_response_body"),
    "GET /role_inferences": ("", "assignment.role_inferences_index_response_body"),
    "GET /regions": ("", "catalog.regions_index_response_body"),
    "POST /regions": ("catalog.region_create_request_body", "catalog.region_show_response_body"),
    "GET /regions/{id}": ("", "catalog.region_show_response_body"),
    "PATCH /regions/{id}": ("catalog.region_update_request_body", "catalog.region_show_response_body"),
    "GET /services": ("", "catalog.service_index_response_body"),
    "POST /services": ("catalog.service_create_request_body", "catalog.service_response_body"),
    "GET /services/{id}": ("", "catalog.service_response_body"),
    "PATCH /services/{id}": ("catalog.service_update_request_body", "catalog.service_response_body"),
    "GET /endpoints": ("", "catalog.endpoint_index_response_body"),
    "POST /endpoints": ("catalog.endpoint_create_request_body", "catalog.endpoint_response_body"),
    "GET /endpoints/{id}": ("", "catalog.endpoint_response_body"),
    "PATCH /endpoints/{id}": ("catalog.endpoint_update_request_body", "catalog.endpoint_response_body"),
    "GET /credentials": ("", "credential.index_response_body"),
    "POST /credentials": ("credential.create_request_body", "credential.credential_response_body"),
    "GET /credentials/{id}": ("", "credential.credential_response_body"),
    "PATCH /credentials/{id}": ("credential.update_request_body", "credential.credential_response_body"),
    "GET /users/{id}/application_credentials": (
        "",
        "application_credential.application_credential_index_response_body",
    ),
    "POST /users/{id}/application_credentials": (
        "application_credential.application_credential_create_request_body",
        "application_credential.application_credential_create_response_body",
    ),
}


def _schema(name: str) -> Any:
    module, _, own = name.partition(".")
    return getattr(importlib.import_module(f"keystone.{module}.schema"), own) if name else None


def main() -> int:
    calls = {call: {"request": _schema(asked), "response": _schema(told)} for call, (asked, told) in CALLS.items()}
    TARGET.write_bytes(gzip.compress(json.dumps(calls, sort_keys=True).encode(), mtime=0))
    print(f"{len(calls)} calls: {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
