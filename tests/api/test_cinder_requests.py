"""What Block Storage takes is what Cinder's published schemas take, at each microversion where something changes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from droveway.api.http.bodies import RequestBody, body_of
from droveway.api.http.router import Route
from droveway.api.volume.routes import VOLUME_ROUTES
from droveway.domain.faults import Fault
from tests.api import cinder_schemas

ID = "3a6c3544-278e-4efa-a1a1-77b7c20db342"
LONG = "x" * 256
_NULLS = {
    "name": None,
    "description": None,
    "volume_type": None,
    "metadata": None,
    "snapshot_id": None,
    "imageRef": None,
}
_ON_VOLUME: tuple[Any, ...] = (
    *({"os-extend": {"new_size": size}} for size in (2, "2", 0, -1, None, "x", 1.5, 2**31)),
    *({"os-extend": {}}, {"os-extend": None}, {"os-extend": {"new_size": 2, "x": 1}}),
    *({"os-retype": {"new_type": "t", "migration_policy": policy}} for policy in ("never", "on-demand", "x", 5)),
    *({"os-retype": {"new_type": "t"}}, {"os-retype": {}}),
    *({"revert": {"snapshot_id": ID}}, {"revert": {"snapshot_id": None}}, {"revert": None}),
    *({"os-set_bootable": {"bootable": flag}} for flag in (True, "true", "False", "maybe", None, "y")),
    *({"os-update_readonly_flag": {"readonly": flag}} for flag in (True, "0", 5)),
    *({"os-set_image_metadata": {"metadata": items}} for items in ({"a": "b"}, {"a": None}, {"ü": "b"}, None)),
    *({"os-unset_image_metadata": {"key": key}} for key in ("a", "", LONG, None)),
    {"os-show_image_metadata": None},
    {"os-show_image_metadata": {}},
    *({"os-reserve": value} for value in (None, {})),
    *({"os-unreserve": value} for value in (None, {})),
    *({"os-begin_detaching": value} for value in (None, {})),
    *({"os-roll_detaching": value} for value in (None, {})),
    *({"os-detach": value} for value in (None, {}, {"attachment_id": ID}, {"attachment_id": None}, {"x": 1})),
    *({"os-attach": value} for value in ({"mountpoint": "/dev/vdb", "instance_uuid": ID, "mode": "ro"}, {})),
    *({"os-attach": {"mountpoint": "/dev/vdb", "host_name": "h", "mode": mode}} for mode in ("rw", "x")),
    *({"os-initialize_connection": value} for value in ({"connector": {}}, {})),
    *({"os-terminate_connection": value} for value in ({"connector": {}}, {"connector": None}, {})),
    *({"os-reset_status": value} for value in ({"status": "error"}, {"status": "x"}, {"attach_status": "detached"})),
    *({"os-reset_status": value} for value in ({"migration_status": "none"}, {"colour": "red"})),
    *({"os-force_delete": value} for value in (None, {})),
    *({"os-force_detach": value} for value in ({"attachment_id": ID, "connector": None}, {}, {"x": 1})),
    *({"os-migrate_volume": value} for value in ({"host": "h@b#p"}, {"host": "h", "lock_volume": "x"}, {"host": 5})),
    {"os-migrate_volume": {"host": "h@b", "force_host_copy": False, "lock_volume": True}},
    {"os-unmanage": None},
    *(
        {"os-volume_upload_image": {"image_name": "n", **more}}
        for more in (
            *({}, {"force": True}, {"disk_format": "qcow2"}, {"disk_format": "x"}, {"container_format": "bare"}),
            *({"visibility": "private", "protected": False}, {"visibility": "x"}, {"colour": 1}),
        )
    ),
    {"os-volume_upload_image": {"image_name": ""}},
)
BODIES: dict[str, tuple[Any, ...]] = {
    "POST volumes": (
        *({"volume": {"size": size}} for size in (1, "1", 0, -1, "x", None, 2**31)),
        *(
            {"volume": {"size": 1, "name": name}}
            for name in ("n", "", None, "🐧" * 255, "🐧" * 256, f"  {'x' * 255} ", 5)
        ),
        *({"volume": {"size": 1, "description": text}} for text in ("d", None, LONG, 5)),
        *(
            {"volume": {"size": 1, "metadata": items}}
            for items in ({"a": "b"}, {}, None, {"a": 1}, {"": "b"}, {"a": LONG})
        ),
        *({"volume": {"size": 1, "snapshot_id": one}} for one in (ID, None, "x")),
        *({"volume": {"size": 1, "multiattach": flag}} for flag in (True, "false", None, "maybe")),
        *({"volume": {"size": 1, "backup_id": one}} for one in (ID, None)),
        *({"volume": {"size": 1, "group_id": one}} for one in (ID, None)),
        {"volume": {"size": 1, "colour": "red"}},
        {"volume": {"size": 1, **_NULLS}, "OS-SCH-HNT:scheduler_hints": {"same_host": ID}},
        {"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": None},
        {"volume": {"size": 1, "imageRef": "tiny", "volume_type": "fast", "availability_zone": "nova"}},
        {"volume": {"size": 1, "volume_type": LONG}},
        {"volume": None},
        {},
        {"volume": {"size": 1}, "x": 1},
    ),
    "PUT volumes/{}": (
        *(
            {"volume": volume}
            for volume in ({"name": "n"}, {"name": None}, {"description": "d"}, {"display_name": "n"})
        ),
        *({"volume": volume} for volume in ({"metadata": {"a": "b"}}, {"metadata": None}, {"size": 2}, {"name": LONG})),
        {"volume": None},
        {},
    ),
    "POST volumes/{}/action": _ON_VOLUME,
    "POST volumes/{}/metadata": tuple({"metadata": items} for items in ({"a": "b"}, {}, {"a": 1}, {"a": None}, None)),
    "PUT volumes/{}/metadata/{}": ({"meta": {"a": "b"}}, {"meta": {}}, {"meta": {"a": "b", "c": "d"}}, {"meta": None}),
    "POST snapshots": (
        *({"snapshot": {"volume_id": one}} for one in (ID, "x", 5)),
        *({"snapshot": {"volume_id": ID, "name": name}} for name in ("n", None, "", LONG)),
        *({"snapshot": {"volume_id": ID, "force": flag}} for flag in (True, "true", "maybe", None)),
        *({"snapshot": {"volume_id": ID, "metadata": items}} for items in ({"a": "b"}, None, {"a": 1})),
        {"snapshot": {"name": "n"}},
        {"snapshot": {"volume_id": ID, "colour": 1}},
    ),
    "PUT snapshots/{}": tuple(
        {"snapshot": one} for one in ({"name": "n"}, {"description": None}, {"size": 1}, {"name": 5})
    ),
    "POST snapshots/{}/action": (
        *({"os-reset_status": {"status": status}} for status in ("available", "error", "x", None)),
        {"os-force_delete": None},
        {"os-unmanage": {}},
        *({"os-update_snapshot_status": {"status": status}} for status in ("available", "creating")),
    ),
    "POST attachments": (
        *({"attachment": {"volume_uuid": ID, **more}} for more in ({}, {"instance_uuid": ID}, {"connector": None})),
        *({"attachment": {"volume_uuid": ID, "mode": mode}} for mode in ("rw", "ro", "x")),
        {"attachment": {"instance_uuid": ID}},
        {"attachment": {"volume_uuid": "x"}},
    ),
    "POST attachments/{}/action": ({"os-complete": None}, {"os-complete": {}}),
    "POST os-volume-transfer": tuple(
        {"transfer": one} for one in ({"volume_id": ID}, {"volume_id": ID, "name": None}, {"volume_id": "x"}, {})
    ),
    "POST volume-transfers": tuple(
        {"transfer": {"volume_id": ID, **one}} for one in ({}, {"no_snapshots": True}, {"no_snapshots": "x"})
    ),
    "POST os-volume-transfer/{}/accept": tuple({"accept": one} for one in ({"auth_key": "k"}, {"auth_key": 5}, {})),
    "POST types": (
        *({"volume_type": {"name": name}} for name in ("n", "", None, LONG)),
        *({"volume_type": {"name": "n", **one}} for one in ({"extra_specs": {"a": None}}, {"description": None})),
        {"volume_type": {"name": "n", "os-volume-type-access:is_public": "false"}},
        {"volume_type": {"name": "n", "colour": 1}},
    ),
    "PUT types/{}": tuple(
        {"volume_type": one} for one in ({"name": "n"}, {"is_public": True}, {"description": "d"}, {"x": 1})
    ),
    "POST types/{}/extra_specs": tuple(
        {"extra_specs": one} for one in ({"a": "b"}, {"a b": "c"}, {"a": None}, {"a": 1})
    ),
    "PUT types/{}/extra_specs/{}": ({"a": "b"}, {"a": "b", "c": "d"}, {}, {"a": LONG}),
    "POST types/{}/action": tuple({"addProjectAccess": one} for one in ({"project": "p"}, {"project": ""}, {})),
    "POST qos-specs": tuple(
        {"qos_specs": one} for one in ({"name": "q", "total_iops_sec": "5"}, {"x": "y"}, {"name": " "})
    ),
    "PUT qos-specs/{}": tuple({"qos_specs": one} for one in ({"a": "b"}, {"a": None}, {"a": 5})),
    "PUT qos-specs/{}/delete_keys": ({"keys": ["a"]}, {"keys": "a"}, {"keys": []}, {"keys": [5]}),
    "PUT default-types/{}": tuple({"default_type": one} for one in ({"volume_type": "t"}, {})),
    "PUT os-quota-class-sets/{}": tuple({"quota_class_set": {"volumes": one}} for one in (5, "5", -1, -2, "x")),
    "POST backups": (
        *(
            {"backup": {"volume_id": ID, **one}}
            for one in ({}, {"incremental": "true"}, {"force": "x"}, {"name": None})
        ),
        *({"backup": {"volume_id": ID, **one}} for one in ({"metadata": None}, {"availability_zone": "nova"})),
        {"backup": {}},
    ),
    "PUT backups/{}": tuple({"backup": one} for one in ({"name": "n"}, {"metadata": {"a": "b"}}, {"size": 1})),
    "POST backups/{}/restore": tuple(
        {"restore": one} for one in ({}, {"volume_id": ID}, {"name": "n"}, {"volume_id": "x"})
    ),
    "POST backups/{}/action": tuple({"os-reset_status": {"status": one}} for one in ("available", "deleting")),
    "PUT os-services/enable": (
        {"binary": "cinder-volume", "host": "h@b"},
        {"host": "h"},
        {"binary": "b", "host": "h h"},
    ),
    "PUT os-services/freeze": ({"host": "h@b"}, {"host": 5}),
}
LATER = {"PUT os-services/enable"}  # which words belong together is looked at by the handler


def _route(call: str, version: int) -> Route | None:
    method, _, path = call.partition(" ")
    shown = re.compile(re.escape(f"/volume/v3/{path}").replace(r"\{\}", r"\{[a-z_]+\}"))
    if path.startswith("os-services/"):
        shown = re.compile(r"/volume/v3/os\-services/\{action\}")
    found = [one for one in VOLUME_ROUTES if one.method == method and shown.fullmatch(one.path)]
    return next((one for one in found if one.since <= version <= one.until), None)


def _takes(body: RequestBody, value: Any, version: int) -> bool | None:
    """As the handler reads it; None at a version that has no such action."""
    try:
        if body.actions:
            (name,) = value
            one = body.actions[name]
            if one.since > version:
                return None
            if not (one.may_be_null and value[name] is None):
                RequestBody(one.form, name).read(value, version)
        else:
            body.read(value, version)
    except Fault:
        return False
    return True


@pytest.mark.parametrize("path", BODIES)
def test_what_is_taken_is_what_cinder_takes(path: str) -> None:
    differing = []
    for value in BODIES[path]:
        call = f"{path} {next(iter(value))}" if path.endswith("/action") else path
        if call in LATER:
            continue
        for version in cinder_schemas.edges(call, "request"):
            route = _route(path, version)
            if route is None:
                continue
            body = body_of(route.handler)
            assert body is not None, path
            says = cinder_schemas.wrong(call, "request", version, value)
            if _takes(body, value, version) not in (None, says is None):
                differing.append(f"3.{version} {str(value)[:160]}: Cinder says {says}")
    assert differing == []
