"""What Block Storage answers is what Tempest's published schemas take, at each microversion where one changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.domain.liveness import State
from droveway.domain.model import Subject, SubjectKind
from droveway.domain.service_kinds import BACKUP
from droveway.domain.volume.messages import Action
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import messages
from tests.api import cinder_schemas
from tests.api.volume_world import FAST, VolumeWorld, volume_world
from tests.api.world import make_image

VERSIONS = (0, 7, 13, 45, 55, 57, 61, 63, 64, 65, 69, 71)


async def _furnished(w: VolumeWorld) -> dict[str, str]:
    """One of everything, and the ids that paths name."""
    image_id = await make_image(w.world, await w.token("admin"), os_distro="debian")
    made = await w.make(who="admin", imageRef=image_id, name="disk", metadata={"a": "b"})
    await w.done(made["id"], launched_at_us=1)
    snapshot = await w.snapshot(made["id"], who="admin", name="s", metadata={"a": "b"})
    given = await w.make(who="admin")
    transfer = (await w.ask("POST", "os-volume-transfer", {"transfer": {"volume_id": given["id"]}}, who="admin")).json()
    kind = (await w.ask("POST", "types", {"volume_type": {"name": "t", "extra_specs": {"a": "b"}}}, who="admin")).json()
    qos = (await w.ask("POST", "qos-specs", {"qos_specs": {"name": "q", "a": "b"}}, who="admin")).json()

    project = await w.project("admin")

    def write(tx: Tx) -> None:
        services.register(tx, "h1", BACKUP, "nova")
        services.record_verdicts(tx, [services.Verdict("h1", BACKUP, State.ALIVE, "its beat arrives", tx.now_us)])
        subject = Subject(SubjectKind.VOLUME, made["id"])
        messages.say(tx, project, "req-1", subject, Action.CREATE, "It is full.")

    await w.world.store.run(write)
    message = (await w.get("messages", who="admin"))["messages"][0]
    return {
        "volumes/{}": made["id"],
        "snapshots/{}": snapshot["id"],
        "os-volume-transfer/{}": transfer["transfer"]["id"],
        "types/{}": kind["volume_type"]["id"],
        "qos-specs/{}": qos["qos_specs"]["id"],
        "messages/{}": message["id"],
        "os-quota-sets/{}": project,
        "os-quota-class-sets/{}": "default",
        "os-hosts/{}": FAST,
        "capabilities/{}": FAST,
    }


BODIES: dict[str, Any] = {
    "POST volumes": {"volume": {"size": 1, "name": "n", "metadata": {"a": "b"}}},
    "PUT volumes/{}": {"volume": {"name": "disk"}},
    "POST volumes/{}/metadata": {"metadata": {"c": "d"}},
    "PUT volumes/{}/metadata": {"metadata": {"a": "b"}},
    "PUT volumes/{}/metadata/{}": {"meta": {"a": "b"}},
    "POST volumes/{}/action os-set_image_metadata": {"os-set_image_metadata": {"metadata": {"a": "b"}}},
    "POST volumes/{}/action os-show_image_metadata": {"os-show_image_metadata": None},
    "PUT snapshots/{}": {"snapshot": {"name": "s"}},
    "POST types": {"volume_type": {"name": "$", "extra_specs": {"a": "b"}}},
    "PUT types/{}": {"volume_type": {"description": "d"}},
    "PUT os-quota-sets/{}": {"quota_set": {"volumes": 50}},
    "PUT os-services/enable": {"binary": "cinder-volume", "host": FAST},
    "PUT os-services/disable": {"binary": "cinder-volume", "host": "h2@slow"},
    "PUT os-services/disable-log-reason": {"binary": "cinder-volume", "host": "h2@slow", "disabled_reason": "why"},
}
# What Cinder answers there and Tempest has not been told of (its own sources say so).
UNTOLD = {
    "snapshots": {"user_id", "group_snapshot_id", "consumes_quota"},
    "volumes": {"cluster_name", "volume_type_id", "consumes_quota"},
}
ANSWERED = [call for call, of in cinder_schemas.CALLS.items() if "response" in of]


def _path(call: str, ids: dict[str, str]) -> str | None:
    """Of a call, with ids in the place of its braces; None where nothing of that kind is there."""
    path = call.partition(" ")[2].partition(" ")[0]
    for pattern, one in ids.items():
        if path.startswith(pattern):
            path = path.replace("{}", one, 1)
    path = path.replace("metadata/{}", "metadata/a")
    return None if "{}" in path else path


def _told(call: str, body: Any) -> Any:
    """Without what Tempest does not know."""
    untold = next((names for word, names in UNTOLD.items() if word in call), set[str]())
    if not untold or (call.endswith("volumes/{}") and call.startswith("GET")):
        return body
    return {
        key: [_without(one, untold) for one in value] if isinstance(value, list) else _without(value, untold)
        for key, value in body.items()
    }


def _without(value: Any, names: set[str]) -> Any:
    return {key: one for key, one in value.items() if key not in names} if isinstance(value, dict) else value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.matrix
async def test_answers_are_those_that_tempest_takes(tmp_path: Path, version: int) -> None:
    async with volume_world(tmp_path) as w:
        ids, wrong, asked = await _furnished(w), [], 0
        for call in ANSWERED:
            method, path, body = call.partition(" ")[0], _path(call, ids), BODIES.get(call)
            if path is None or (body is None and method != "GET"):
                continue
            if call == "POST types":
                body = {"volume_type": body["volume_type"] | {"name": f"t{version}"}}
            reply = await w.ask(method, path, body, who="admin", version=version)
            if reply.status_code == 404 and version < 64:
                continue  # not there yet
            asked += 1
            if not cinder_schemas.statuses(call, version):
                continue
            if reply.status_code not in cinder_schemas.statuses(call, version):
                wrong.append(f"{call}: {reply.status_code} {reply.text[:200]}")
                continue
            told = _told(call, reply.json()) if reply.content else None
            says = None if told is None else cinder_schemas.wrong(call, "response", version, told)
            if says is not None:
                wrong.append(f"{call}: {says}")
        assert wrong == [], "\n".join(wrong)
        assert asked > 25
