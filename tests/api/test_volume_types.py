"""Types, quality of service, transfers, messages, services, backups: what is around a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from droveway.domain.liveness import State
from droveway.domain.model import Subject, SubjectKind
from droveway.domain.service_kinds import BACKUP
from droveway.domain.volume.messages import Action
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import backends, backups, messages, volumes
from droveway.store.work import ageing
from tests.api.volume_world import FAST, SLOW, VolumeWorld, volume_world
from tests.api.world import reason


async def make_type(w: VolumeWorld, name: str, **more: Any) -> str:
    reply = await w.ask("POST", "types", {"volume_type": {"name": name, **more}}, who="admin")
    assert reply.status_code == 200, reply.text
    return str(reply.json()["volume_type"]["id"])


# -- types ------------------------------------------------------------------------------------------------------------
async def test_there_is_a_type_from_the_start(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        assert (await w.get("types/default"))["volume_type"]["name"] == "__DEFAULT__"
        first = (await w.get("types/__DEFAULT__"))["volume_type"]["id"]
        await w.make()
        reply = await w.ask("DELETE", f"types/{first}", who="admin")
        assert reply.status_code == 400 and "not allowed with existing volumes" in reason(reply)


async def test_without_a_default_type_it_says_what_to_do(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        first = (await w.get("types/default"))["volume_type"]["id"]
        await make_type(w, "other")
        assert (await w.ask("DELETE", f"types/{first}", who="admin")).status_code == 202
        reply = await w.ask("POST", "volumes", {"volume": {"size": 1}})
        assert reply.status_code == 404 and "names another one as volume.default_type" in reason(reply)
        await w.make(volume_type="other")


async def test_a_private_type_is_its_projects(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        kind = await make_type(w, "secret", **{"os-volume-type-access:is_public": False})
        red = await w.project()
        assert [one["name"] for one in (await w.get("types"))["volume_types"]] == ["__DEFAULT__"]
        assert (await w.ask("GET", f"types/{kind}")).status_code == 404
        reply = await w.ask("POST", "volumes", {"volume": {"size": 1, "volume_type": "secret"}})
        assert reply.status_code == 404 and "Volume type secret could not be found" in reason(reply)
        allow = {"addProjectAccess": {"project": red}}
        assert (await w.ask("POST", f"types/{kind}/action", allow, who="admin")).status_code == 202
        assert (await w.ask("POST", f"types/{kind}/action", allow, who="admin")).status_code == 409
        shown = await w.get(f"types/{kind}/os-volume-type-access", who="admin")
        assert shown["volume_type_access"] == [{"volume_type_id": kind, "project_id": red}]
        assert (await w.make(volume_type="secret"))["volume_type"] == "secret"
        names = {one["name"] for one in (await w.get("types?is_public=None", who="admin"))["volume_types"]}
        assert names == {"__DEFAULT__", "secret"}
        assert len((await w.get("types?is_public=false", who="admin"))["volume_types"]) == 1


async def test_extra_specs_are_the_operators(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        kind = await make_type(w, "t", extra_specs={"volume_backend_name": "fast", "replication_enabled": "<is> False"})
        assert (await w.get(f"types/{kind}"))["volume_type"]["extra_specs"] == {"replication_enabled": "<is> False"}
        assert (await w.ask("GET", f"types/{kind}/extra_specs/volume_backend_name")).status_code == 404
        for body in ({"a": "b", "c": "d"}, {"x": "y"}):
            reply = await w.ask("PUT", f"types/{kind}/extra_specs/a", body, who="admin")
            assert reply.status_code == 400
        await w.ask("POST", f"types/{kind}/extra_specs", {"extra_specs": {"a": "b"}}, who="admin")
        assert (await w.ask("DELETE", f"types/{kind}/extra_specs/a", who="admin")).status_code == 202
        reply = await w.ask(
            "POST", f"types/{kind}/extra_specs", {"extra_specs": {"multiattach": "<is> True"}}, who="admin"
        )
        assert reply.status_code == 400 and "multiattach volumes are not offered here" in reason(reply)
        assert (await w.get(f"types/{kind}/encryption", who="admin")) == {}
        reply = await w.ask("POST", f"types/{kind}/encryption", {"encryption": {}}, who="admin")
        assert reply.status_code == 400 and "not encrypted here" in reason(reply)


async def test_a_project_has_a_default_of_its_own(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        kind, red = await make_type(w, "t"), await w.project()
        assert (await w.ask("GET", f"default-types/{red}", who="admin")).status_code == 404
        body = {"default_type": {"volume_type": "t"}}
        assert (await w.ask("PUT", f"default-types/{red}", body, who="admin")).status_code == 200
        assert (await w.get("default-types", who="admin"))["default_types"] == [
            {"project_id": red, "volume_type_id": kind}
        ]
        assert (await w.make())["volume_type"] == "t" and (await w.make(who="bob"))["volume_type"] == "__DEFAULT__"
        reply = await w.ask("DELETE", f"types/{kind}", who="admin")
        assert reply.status_code == 400
        assert (await w.ask("DELETE", f"default-types/{red}", who="admin")).status_code == 204


async def test_qos_is_of_one_name_and_of_types(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        kind = await make_type(w, "t")
        body = {"qos_specs": {"name": "q", "consumer": "front-end", "total_iops_sec": "100"}}
        made = (await w.ask("POST", "qos-specs", body, who="admin")).json()["qos_specs"]
        assert made["specs"] == {"total_iops_sec": "100"} and made["consumer"] == "front-end"
        assert (await w.ask("POST", "qos-specs", body, who="admin")).status_code == 409
        here = f"qos-specs/{made['id']}"
        assert (await w.ask("GET", f"{here}/associate?vol_type_id={kind}", who="admin")).status_code == 202
        assert (await w.get(f"types/{kind}", who="admin"))["volume_type"]["qos_specs_id"] == made["id"]
        other = {"qos_specs": {"name": "r", "consumer": "nobody"}}
        assert (await w.ask("POST", "qos-specs", other, who="admin")).status_code == 400
        reply = await w.ask("DELETE", here, who="admin")
        assert reply.status_code == 400 and "still associated" in reason(reply)
        assert (await w.ask("PUT", here, {"qos_specs": {"read_iops_sec": "5"}}, who="admin")).status_code == 200
        assert (await w.ask("PUT", f"{here}/delete_keys", {"keys": ["x"]}, who="admin")).status_code == 404
        assert (await w.ask("DELETE", f"{here}?force=true", who="admin")).status_code == 202
        assert (await w.get(f"types/{kind}", who="admin"))["volume_type"]["qos_specs_id"] is None


# -- transfers --------------------------------------------------------------------------------------------------------
async def test_a_volume_changes_hands_with_its_snapshots(tmp_path: Path) -> None:
    async with volume_world(tmp_path, quotas=VolumeQuotas(gigabytes=3)) as w:
        made = await w.make()
        await w.snapshot(made["id"])
        reply = await w.ask("POST", "volume-transfers", {"transfer": {"volume_id": made["id"], "name": "t"}})
        transfer = reply.json()["transfer"]
        assert reply.status_code == 202 and len(transfer["auth_key"]) == 16
        assert "auth_key" not in (await w.get(f"volume-transfers/{transfer['id']}"))["transfer"]
        assert (await w.get(f"volumes/{made['id']}"))["volume"]["status"] == "awaiting-transfer"
        accept = f"volume-transfers/{transfer['id']}/accept"
        reply = await w.ask("POST", accept, {"accept": {"auth_key": "wrong"}}, who="bob")
        assert reply.status_code == 400 and "invalid auth key" in reason(reply)
        key = {"accept": {"auth_key": transfer["auth_key"]}}
        await w.make(who="bob", size=2)
        reply = await w.ask("POST", accept, key, who="bob")
        assert reply.status_code == 413 and "Requested 2G, quota is 3G and 2G has been consumed" in reason(reply)
        for one in (await w.get("volumes", who="bob"))["volumes"]:
            await w.ask("DELETE", f"volumes/{one['id']}", who="bob")
            await w.world.store.run(volumes.remove, one["id"])
        assert (await w.ask("POST", accept, key, who="bob")).status_code == 202
        assert (await w.ask("GET", f"volumes/{made['id']}")).status_code == 404
        assert (await w.get(f"volumes/{made['id']}", who="bob"))["volume"]["status"] == "available"
        assert len((await w.get("snapshots", who="bob"))["snapshots"]) == 1
        assert (await w.ask("POST", accept, key, who="bob")).status_code == 404


async def test_a_transfer_is_taken_back(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        body = {"transfer": {"volume_id": made["id"], "no_snapshots": True}}
        transfer = (await w.ask("POST", "volume-transfers", body)).json()["transfer"]
        reply = await w.ask("DELETE", f"volumes/{made['id']}")
        assert reply.status_code == 400 and "awaiting-transfer" in reason(reply)
        assert (await w.ask("DELETE", f"os-volume-transfer/{transfer['id']}", who="bob")).status_code == 404
        assert (await w.ask("DELETE", f"os-volume-transfer/{transfer['id']}")).status_code == 202
        assert (await w.get(f"volumes/{made['id']}"))["volume"]["status"] == "available"
        await w.ask("POST", "volume-transfers", body)
        assert (await w.ask("DELETE", f"volumes/{made['id']}?force=true", who="admin")).status_code == 202
        assert (await w.get("volume-transfers"))["transfers"] == [], "it went with its volume"


# -- messages ---------------------------------------------------------------------------------------------------------
async def test_a_message_says_why_to_its_project_and_ages(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made, red = await w.make(), await w.project()
        subject = Subject(SubjectKind.VOLUME, made["id"])
        await w.world.store.run(messages.say, red, "req-1", subject, Action.CREATE, "Every backend is full.")
        (one,) = (await w.get(f"messages?resource_uuid={made['id']}"))["messages"]
        assert (one["user_message"], one["resource_type"], one["message_level"]) == (
            "Every backend is full.",
            "VOLUME",
            "ERROR",
        )
        assert (await w.ask("GET", f"messages/{one['id']}", who="bob")).status_code == 404
        assert (await w.ask("GET", "messages", version=2)).status_code == 404
        w.world.clock.ahead_us = messages.KEPT_US + 1
        await w.world.store.run(ageing.forget_old, messages.KEPT_US, 100)
        w.tokens.clear()
        assert (await w.get("messages"))["messages"] == []


# -- services ---------------------------------------------------------------------------------------------------------
async def test_services_are_disabled_frozen_and_shown(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        body = {"binary": "cinder-volume", "host": f"{SLOW}#slow", "disabled_reason": "old"}
        assert (await w.ask("PUT", "os-services/disable-log-reason", body)).status_code == 403
        assert (await w.ask("PUT", "os-services/disable-log-reason", body, who="admin")).status_code == 200
        rows = {one["host"]: one for one in (await w.get("os-services", who="admin"))["services"]}
        assert (rows[SLOW]["status"], rows[SLOW]["disabled_reason"], rows[SLOW]["backend_state"]) == (
            "disabled",
            "old",
            "up",
        )
        assert (await w.ask("PUT", "os-services/freeze", {"host": FAST}, who="admin")).status_code == 200
        rows = {one["host"]: one for one in (await w.get("os-services", who="admin"))["services"]}
        assert rows[FAST]["frozen"] and not rows[SLOW]["frozen"]
        assert [one["host"] for one in (await w.get("os-services?host=h1", who="admin"))["services"]] == [FAST]
        assert "backend_state" not in (await w.get("os-services", who="admin", version=48))["services"][0]
        for action, body, code in (
            ("freeze", {"host": "h9@x"}, 400),
            ("failover", {"host": FAST}, 400),
            ("enable", {"host": FAST}, 400),
            ("enable", {"binary": "cinder-volume", "host": "h9@x"}, 404),
            ("explode", {"host": FAST}, 404),
        ):
            assert (await w.ask("PUT", f"os-services/{action}", body, who="admin")).status_code == code
        await w.make()
        (total, red) = (await w.get(f"os-hosts/{FAST}", who="admin"))["host"]
        assert total["resource"]["volume_count"] == "1" == red["resource"]["volume_count"]
        pools = (await w.get("scheduler-stats/get_pools?detail=true", who="admin"))["pools"]
        assert pools[0]["name"] == "h1@fast#fast" and pools[0]["capabilities"]["allocated_capacity_gb"] == 1
        capability = await w.get(f"capabilities/{FAST}", who="admin")
        assert capability["storage_protocol"] == "simulated" and capability["properties"]["reverts"]["default"] is True


# -- backups ----------------------------------------------------------------------------------------------------------
async def test_without_a_service_for_them_there_are_no_backups(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        reply = await w.ask("POST", "backups", {"backup": {"volume_id": made["id"]}})
        assert reply.status_code == 503 and "no host of this cloud makes backups" in reason(reply)


async def test_a_record_goes_to_another_cloud(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made, red = await w.make(), await w.project()
        record = backups.Record(
            *("00000000-0000-4000-8000-000000000001", "b", None, made["id"], None, None, "available"),
            *(1, "box", 3, 4096, {}, 1_000_000),
        )

        def write(tx: Tx) -> None:
            services.register(tx, "h1", BACKUP, "nova")
            services.record_verdicts(tx, [services.Verdict("h1", BACKUP, State.ALIVE, "it beats", tx.now_us)])
            backups.take_in(tx, record, red, "u")

        await w.world.store.run(write)
        shown = (await w.get(f"backups/{record.id}"))["backup"]
        made = await w.make(size=None, backup_id=record.id, done=False)
        assert made["size"] == 1 and [kind for kind, _ in await w.sagas_of(record.id)] == ["restore_backup"]
        await w.end_sagas(record.id)
        await w.world.store.run(backups.set_, record.id, status="available")
        await w.done(record.volume_id, metadata={"a": "b"}, bootable=True)
        restored = (await w.ask("POST", f"backups/{record.id}/restore", {"restore": {"name": "r"}})).json()["restore"]
        again = (await w.get(f"volumes/{restored['volume_id']}"))["volume"]
        assert (again["name"], again["metadata"], again["bootable"]) == ("r", {"a": "b"}, "true")
        await w.end_sagas(record.id)
        await w.world.store.run(backups.set_, record.id, status="available")
        assert shown["is_incremental"] is False and shown["has_dependent_backups"] is False and shown["size"] == 1
        told = await w.get(f"backups/{record.id}/export_record", who="admin")
        reply = await w.ask("POST", "backups/import_record", told, who="admin")
        assert reply.status_code == 400 and "already exists" in reason(reply)
        await w.world.store.run(backups.remove, record.id)
        reply = await w.ask("POST", "backups/import_record", told, who="admin")
        assert reply.status_code == 201 and reply.json()["backup"]["id"] == record.id
        told["backup-record"]["backup_url"] = "AAAA"
        reply = await w.ask("POST", "backups/import_record", told, who="admin")
        assert reply.status_code == 400 and "Can't parse backup record" in reason(reply)
        assert await w.world.store.read(backends.count_on, FAST) == 1, "the two that are made of it have no backend yet"


async def test_a_project_with_volumes_is_not_deleted(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made, red = await w.make(), await w.project()
        body = {"quota_set": {"volumes": 3}}
        assert (await w.ask("PUT", f"os-quota-sets/{red}", body, who="admin")).status_code == 200
        admin = await w.token("admin")
        reply = await w.world.ask("DELETE", f"/identity/v3/projects/{red}", token=admin)
        assert reply.status_code == 409 and "still has 1 volumes" in reply.json()["error"]["message"]
        await w.world.store.run(volumes.remove, made["id"])
        assert (await w.world.ask("DELETE", f"/identity/v3/projects/{red}", token=admin)).status_code == 204
        assert (await w.get(f"os-quota-sets/{red}", who="admin"))["quota_set"]["volumes"] == -1
