"""Makes tests/api/cinder_schemas.json.gz of the schemas that Cinder publishes of requests (package `cinder` of PyPI)
and those by which Tempest checks Block Storage's answers (package `tempest`; both Apache-2.0).

    pip download cinder==29.0.0 tempest==47.0.0 --no-deps
    unzip cinder-29.0.0-*.whl -d cinder29 && unzip tempest-47.0.0-*.whl -d tempest47
    python -m lab.cinder_schemas cinder29 tempest47

Neither is run, nor what it needs: their schemas are modules of plain values. Which of Cinder's belongs to which call
stands in the decorators of its controllers; which call those controllers serve, and which of Tempest's schemas is that
of which answer, stands here.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.nova_schemas import FOREVER, _package, _stand_in

TARGET = Path(__file__).resolve().parent.parent / "tests" / "api" / "cinder_schemas.json.gz"
VOLUME, SNAPSHOT, TYPE = "volumes/{}", "snapshots/{}", "types/{}"
# file, class (where several have such a method), method -> call, and the name of an action
REQUESTS: dict[tuple[str, str, str], str] = {
    ("v3/volumes", "", "create"): "POST volumes",
    ("v3/volumes", "", "update"): f"PUT {VOLUME}",
    ("v3/volumes", "", "revert"): f"POST {VOLUME}/action",
    ("v3/volume_metadata", "", "create"): f"POST {VOLUME}/metadata",
    ("v3/volume_metadata", "", "update"): f"PUT {VOLUME}/metadata/{{}}",
    ("v3/volume_metadata", "", "update_all"): f"PUT {VOLUME}/metadata",
    ("v3/snapshots", "", "create"): "POST snapshots",
    ("v3/snapshots", "", "update"): f"PUT {SNAPSHOT}",
    ("v3/snapshot_metadata", "", "create"): f"POST {SNAPSHOT}/metadata",
    ("v3/snapshot_metadata", "", "update_all"): f"PUT {SNAPSHOT}/metadata",
    ("v3/attachments", "", "create"): "POST attachments",
    ("v3/attachments", "", "update"): "PUT attachments/{}",
    ("v3/attachments", "", "complete"): "POST attachments/{}/action",
    ("v3/volume_transfer", "", "create"): "POST volume-transfers",
    ("contrib/volume_transfer", "", "create"): "POST os-volume-transfer",
    ("contrib/volume_transfer", "", "accept"): "POST os-volume-transfer/{}/accept",
    ("v3/backups", "", "update"): "PUT backups/{}",
    ("contrib/backups", "", "create"): "POST backups",
    ("contrib/backups", "", "restore"): "POST backups/{}/restore",
    ("contrib/backups", "", "import_record"): "POST backups/import_record",
    ("v3/default_types", "", "create_update"): "PUT default-types/{}",
    ("contrib/types_manage", "", "_create"): "POST types",
    ("contrib/types_manage", "", "_update"): f"PUT {TYPE}",
    ("contrib/types_extra_specs", "", "create"): f"POST {TYPE}/extra_specs",
    ("contrib/types_extra_specs", "", "update"): f"PUT {TYPE}/extra_specs/{{}}",
    ("contrib/volume_type_access", "", "_addProjectAccess"): f"POST {TYPE}/action",
    ("contrib/volume_type_access", "", "_removeProjectAccess"): f"POST {TYPE}/action",
    ("contrib/qos_specs_manage", "", "create"): "POST qos-specs",
    ("contrib/qos_specs_manage", "", "update"): "PUT qos-specs/{}",
    ("contrib/qos_specs_manage", "", "delete_keys"): "PUT qos-specs/{}/delete_keys",
    ("contrib/quotas", "", "update"): "PUT os-quota-sets/{}",
    ("contrib/quota_classes", "", "update"): "PUT os-quota-class-sets/{}",
    ("v3/services", "", "freeze"): "PUT os-services/freeze",
    ("v3/services", "", "thaw"): "PUT os-services/thaw",
    ("v3/services", "", "enable"): "PUT os-services/enable",
    ("v3/services", "", "disable"): "PUT os-services/disable",
    ("v3/services", "", "disable_log_reason"): "PUT os-services/disable-log-reason",
    ("contrib/volume_manage", "", "create"): "POST os-volume-manage",
    ("v3/volume_manage", "", "create"): "POST manageable_volumes",
    ("contrib/volume_actions", "", ""): f"POST {VOLUME}/action",
    ("contrib/volume_image_metadata", "", ""): f"POST {VOLUME}/action",
    ("contrib/volume_unmanage", "", ""): f"POST {VOLUME}/action",
    ("contrib/admin_actions", "VolumeAdminController", ""): f"POST {VOLUME}/action",
    ("contrib/admin_actions", "SnapshotAdminController", ""): f"POST {SNAPSHOT}/action",
    ("contrib/admin_actions", "BackupAdminController", ""): "POST backups/{}/action",
    ("contrib/snapshot_actions", "", ""): f"POST {SNAPSHOT}/action",
    ("contrib/snapshot_unmanage", "", ""): f"POST {SNAPSHOT}/action",
}
# Tempest's name of the answer -> call, by the module that it stands in
ANSWERS: dict[str, dict[str, str]] = {
    "volumes": {
        "list_volumes_no_detail": "GET volumes",
        "list_volumes_with_detail": "GET volumes/detail",
        "show_volume": f"GET {VOLUME}",
        "create_volume": "POST volumes",
        "update_volume": f"PUT {VOLUME}",
        "show_volume_summary": "GET volumes/summary",
        "create_volume_metadata": f"POST {VOLUME}/metadata",
        "show_volume_metadata": f"GET {VOLUME}/metadata",
        "update_volume_metadata": f"PUT {VOLUME}/metadata",
        "show_volume_metadata_item": f"GET {VOLUME}/metadata/{{}}",
        "update_volume_metadata_item": f"PUT {VOLUME}/metadata/{{}}",
        "update_volume_image_metadata": f"POST {VOLUME}/action os-set_image_metadata",
        "show_volume_image_metadata": f"POST {VOLUME}/action os-show_image_metadata",
    },
    "snapshots": {
        "list_snapshots_no_detail": "GET snapshots",
        "list_snapshots_with_detail": "GET snapshots/detail",
        "show_snapshot": f"GET {SNAPSHOT}",
        "create_snapshot": "POST snapshots",
        "update_snapshot": f"PUT {SNAPSHOT}",
        "show_snapshot_metadata": f"GET {SNAPSHOT}/metadata",
    },
    "transfers": {
        "create_volume_transfer": "POST os-volume-transfer",
        "show_volume_transfer": "GET os-volume-transfer/{}",
        "list_volume_transfers_no_detail": "GET os-volume-transfer",
        "list_volume_transfers_with_detail": "GET os-volume-transfer/detail",
        "accept_volume_transfer": "POST os-volume-transfer/{}/accept",
    },
    "backups": {
        "list_backups_no_detail": "GET backups",
        "list_backups_with_detail": "GET backups/detail",
        "show_backup": "GET backups/{}",
        "create_backup": "POST backups",
        "update_backup": "PUT backups/{}",
    },
    "services": {
        "list_services": "GET os-services",
        "enable_service": "PUT os-services/enable",
        "disable_service": "PUT os-services/disable",
        "disable_log_reason": "PUT os-services/disable-log-reason",
    },
    "volume_types": {
        "list_volume_types": "GET types",
        "show_volume_type": f"GET {TYPE}",
        "create_volume_type": "POST types",
        "update_volume_types": f"PUT {TYPE}",
        "list_volume_types_extra_specs": f"GET {TYPE}/extra_specs",
    },
    "qos": {"list_qos": "GET qos-specs", "show_qos": "GET qos-specs/{}", "create_qos": "POST qos-specs"},
    "quotas": {"show_quota_set": "GET os-quota-sets/{}", "update_quota_set": "PUT os-quota-sets/{}"},
    "quota_classes": {
        "show_quota_class_set": "GET os-quota-class-sets/{}",
        "update_quota_class_set": "PUT os-quota-class-sets/{}",
    },
    "limits": {"show_limits": "GET limits"},
    "messages": {"list_messages": "GET messages", "show_message": "GET messages/{}"},
    "hosts": {"list_hosts": "GET os-hosts", "show_host": "GET os-hosts/{}"},
    "scheduler_stats": {"list_pools_no_detail": "GET scheduler-stats/get_pools"},
    "capabilities": {"show_backend_capabilities": "GET capabilities/{}"},
    "extensions": {"list_extensions": "GET extensions"},
}


def _minors(root: Path) -> dict[str, int]:
    text = (root / "cinder" / "api" / "microversions.py").read_text()
    return {name: int(minor) for name, minor in re.findall(r"^([A-Z_]+) = '3\.(\d+)'", text, re.MULTILINE)}


def _minor(node: ast.expr | None, minors: dict[str, int], otherwise: int) -> int:
    """Of `mv.NAME`, or of `mv.get_prior_version(mv.NAME)`."""
    if isinstance(node, ast.Attribute):
        return minors[node.attr]
    if isinstance(node, ast.Call):
        return _minor(node.args[0], minors, otherwise) - 1
    return otherwise


def _requests(root: Path) -> Iterator[tuple[str, int, int, Any]]:
    """Each call with the microversions of a schema and the schema."""
    minors = _minors(root)
    for (file, owner, method), call in REQUESTS.items():
        tree = ast.parse((root / "cinder" / "api" / f"{file}.py").read_text())
        modules = {
            alias.asname or alias.name: alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module == "cinder.api.schemas"
            for alias in node.names
        }
        for each in (node for node in tree.body if isinstance(node, ast.ClassDef) and owner in ("", node.name)):
            for function in (node for node in each.body if isinstance(node, ast.FunctionDef)):
                if method not in ("", function.name):
                    continue
                for used in function.decorator_list:
                    if not isinstance(used, ast.Call) or ast.unparse(used.func) != "validation.schema":
                        continue
                    named, *span = used.args
                    assert isinstance(named, ast.Attribute) and isinstance(named.value, ast.Name), "schema.NAME"
                    module = importlib.import_module(f"cinder.api.schemas.{modules[named.value.id]}")
                    schema = getattr(module, named.attr)
                    low = _minor(span[0] if span else None, minors, 0)
                    high = _minor(span[1] if len(span) > 1 else None, minors, FOREVER)
                    action = f" {schema['required'][0]}" if call.endswith("/action") else ""
                    yield call + action, low, high, schema


def _answers() -> Iterator[tuple[str, int, int, Any]]:
    """From the first microversion that changed one to the one before the next."""
    place = "tempest.lib.api_schema.response.volume"
    for name, calls in ANSWERS.items():
        firsts = [0]
        folder = Path(sys.modules[place].__path__[0])
        firsts += sorted(int(one.parent.name[3:]) for one in folder.glob(f"v3_*/{name}.py"))
        for number, first in enumerate(firsts):
            module = importlib.import_module(f"{place}.{f'v3_{first}.' if first else ''}{name}")
            last = firsts[number + 1] - 1 if number + 1 < len(firsts) else FOREVER
            for schema, call in calls.items():
                if hasattr(module, schema):
                    yield call, first, last, getattr(module, schema)


# -- policies ---------------------------------------------------------------------------------------------------------
RANKS = {  # of the names in cinder/policies/base.py; what is composed or of the owner counts as any
    "SYSTEM_READER_OR_PROJECT_READER": 1,
    "XENA_SYSTEM_READER_OR_PROJECT_READER": 1,
    "SYSTEM_ADMIN_OR_PROJECT_MEMBER": 2,
    "RULE_ADMIN_API": 4,
    "SYSTEM_ADMIN": 4,
}
ROLES = ("any", "reader", "member", "manager", "admin")


def _policies(root: Path) -> dict[str, str]:
    """Who may call what by default: method, path and the name of an action -> role; of several policies of one call the
    weakest is that of the call."""
    found: dict[str, int] = {}
    for module in sorted(root.joinpath("cinder", "policies").glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "DocumentedRuleDefault":
                continue
            words = {word.arg: word.value for word in node.keywords}
            check = words["check_str"]
            name = check.attr if isinstance(check, ast.Attribute) else check.id if isinstance(check, ast.Name) else ""
            rank = RANKS.get(name, 0)
            for operation in ast.literal_eval(words["operations"]):
                path, _, action = operation["path"].partition(" (")
                path = re.sub(r"\{[^}]*\}", "{}", path.partition("?")[0].strip().strip("/"))
                key = f"{operation['method']} {path}" + (f" {action.rstrip(')')}" if action else "")
                found[key] = min(found.get(key, rank), rank)
    return {key: ROLES[rank] for key, rank in found.items()}


def main(cinder: Path, tempest: Path) -> None:
    for name in ("cinder", "cinder.api", "cinder.api.schemas", "cinder.api.validation", "cinder.common"):
        _package(name, cinder.joinpath(*name.split(".")))
    _stand_in("cinder.common.constants", {"DB_MAX_INT": 2**31 - 1, "LOG_BINARIES": ()})
    parts = ["tempest", "lib", "api_schema", "response", "volume"]
    for end in range(1, len(parts) + 1):
        _package(".".join(parts[:end]), tempest.joinpath(*parts[:end]))
    schemas: list[Any] = []
    index: dict[str, int] = {}

    def numbered(schema: Any) -> int:
        text = json.dumps(schema, sort_keys=True)
        if text not in index:
            index[text] = len(schemas)
            schemas.append(json.loads(text))
        return index[text]

    calls: dict[str, dict[str, list[list[int]]]] = {}
    for kind, found in (("request", _requests(cinder)), ("response", _answers())):
        for call, low, high, schema in found:
            calls.setdefault(call, {}).setdefault(kind, []).append([low, high, numbered(schema)])
    about = "Of cinder 29.0.0 and tempest 47.0.0 (Apache-2.0), by lab/cinder_schemas.py: [first, last, which schema]"
    everything = {"about": about, "calls": calls, "schemas": schemas, "policies": _policies(cinder)}
    made = json.dumps(everything, separators=(",", ":"))
    TARGET.write_bytes(gzip.compress(made.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
