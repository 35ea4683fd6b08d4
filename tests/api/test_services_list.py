"""The lists of services, why one is down, block storage that is not there yet, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from droveway.domain import service_kinds
from droveway.domain.faults import NotFound
from droveway.domain.liveness import State
from droveway.domain.metrics import LATENESS_BUCKETS_MS, LivenessMetrics, TaskMetrics
from droveway.domain.service_kinds import Kind, ListedBy
from droveway.store.fleet import services
from tests.api.world import NOVA, World, in_world, reason

OWN = "/droveway/v1/services"
VOLUME = "/volume/v3"
BASIC = {"id", "binary", "host", "zone", "status", "state", "updated_at", "disabled_reason"}


async def control_too(world: World) -> None:
    """A control beside the hosts h1 and h2; h2 is down."""
    for binary in services.CONTROL:
        await world.store.run(services.register, "c1", binary, "internal")
    verdicts = [services.Verdict("c1", binary, State.ALIVE, "it answers", 7) for binary in services.CONTROL]
    verdicts.append(services.Verdict("h2", "nova-compute", State.HOST_GONE, "nobody reaches it", 8))
    await world.store.run(services.record_verdicts, verdicts)


# -- lists ------------------------------------------------------------------------------------------------------------
async def test_each_microversion_shows_its_fields(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()

        async def first(version: str) -> dict[str, Any]:
            reply = await world.ask("GET", f"{NOVA}/os-services", token=token, version=version)
            found: dict[str, Any] = reply.json()["services"][0]
            return found

        for version, names, is_number in (
            ("2.1", BASIC, True),
            ("2.10", BASIC, True),
            ("2.11", BASIC | {"forced_down"}, True),
            ("2.52", BASIC | {"forced_down"}, True),
            ("2.53", BASIC | {"forced_down"}, False),
            ("2.69", BASIC | {"forced_down"}, False),
        ):
            found = await first(version)
            assert set(found) == names, version
            assert isinstance(found["id"], int) is is_number, version
        unknown = f"{NOVA}/os-services?colour=red"
        assert (await world.ask("GET", unknown, token=token, version="2.74")).status_code == 200
        assert (await world.ask("GET", unknown, token=token, version="2.75")).status_code == 400


async def test_the_server_filters(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        await control_too(world)
        token = await world.token()

        async def names(path: str) -> list[str]:
            found = (await world.ask("GET", path, token=token)).json()["services"]
            return [f"{each['host']}/{each['binary']}" for each in found]

        for base, many in ((f"{NOVA}/os-services", 4), (OWN, 5)):
            assert len(await names(base)) == many
            assert await names(f"{base}?host=h1") == ["h1/nova-compute"]
            assert await names(f"{base}?binary=nova-conductor") == ["c1/nova-conductor"]
            assert await names(f"{base}?host=h1&binary=nova-conductor") == []
            assert len(await names(f"{base}?host=&binary=")) == many


async def test_the_own_list_says_what_the_judge_said(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        await control_too(world)
        token = await world.token()

        async def h2() -> dict[str, Any]:
            (found,) = (await world.ask("GET", f"{OWN}?host=h2", token=token)).json()["services"]
            return dict(found)

        found = await h2()
        assert (found["word"], found["state"], found["since_us"]) == ("down", "host gone", 8)
        assert found["reason"] == "nobody reaches it"
        verdict = services.Verdict("h2", "nova-compute", State.ALIVE, "heartbeats arrive", 9)
        await world.store.run(services.record_verdicts, [verdict])
        assert ((await h2())["word"], (await h2())["state"]) == ("up", "alive")
        await world.store.run(services.set_, found["id"], forced_down=True)
        assert ((await h2())["word"], (await h2())["state"]) == ("down", "alive")


# -- why --------------------------------------------------------------------------------------------------------------
async def test_why_tells_of_each_service_of_a_host(tmp_path: Path) -> None:
    async def why(host: str, binary: str) -> dict[str, Any]:
        if host == "h2":
            raise NotFound(f"{binary} on {host} has just been deleted.")
        verdict = {"host": host, "binary": binary, "state": "alive", "word": "up", "since_us": 1, "reason": "x"}
        return {"verdict": verdict, "evidence": [], "advice": []}

    async with in_world(tmp_path) as world:
        await control_too(world)
        token, alice = await world.token(), await world.token("alice", "red")
        before = await world.ask("GET", f"{OWN}/h1/why", token=token)
        assert (before.status_code, "No control runs" in reason(before)) == (503, True)
        world.control.why = why

        async def ask(path: str, by: str = token) -> Any:
            return await world.ask("GET", f"{OWN}/{path}", token=by)

        def told(reply: Any) -> list[str]:
            return [each["verdict"]["binary"] for each in reply.json()["services"]]

        assert told(await ask("c1/why")) == list(services.CONTROL)
        assert told(await ask("c1/why?binary=nova-conductor")) == ["nova-conductor"]
        assert told(await ask("h1/why?binary=")) == ["nova-compute"]
        for path, says in (
            ("nowhere/why", "There is no service on a host named nowhere"),
            ("c1/why?binary=nova-x", "there is nova-scheduler, nova-conductor"),
            ("h2/why", "has just been deleted"),
        ):
            reply = await ask(path)
            assert (reply.status_code, says in reason(reply)) == (404, True), path
        assert (await ask("h1/why", alice)).status_code == 403
        assert (await world.http.get(f"{OWN}/h1/why")).status_code == 401


# -- block storage ----------------------------------------------------------------------------------------------------
async def test_block_storage_is_empty_and_says_so(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, alice = await world.token(), await world.token("alice", "red")
        catalog = (await world.ask("GET", "/identity/v3/auth/catalog", token=token)).json()["catalog"]
        urls = {each["type"]: each["endpoints"][0]["url"] for each in catalog}
        assert urls["block-storage"] == urls["volumev3"] == f"http://cloud.test{VOLUME}"
        for path, status in (("/volume", 300), ("/volume/", 300), (VOLUME, 200), (f"{VOLUME}/", 200)):
            reply = await world.http.get(path)
            assert (reply.status_code, reply.json()["versions"][0]["version"]) == (status, "3.71"), path
        project = (await world.ask("GET", "/identity/v3/auth/projects", token=token)).json()["projects"][0]["id"]

        async def ask(path: str, version: str | None = None, by: str = token) -> Any:
            headers = {"OpenStack-API-Version": version} if version else {}
            return await world.ask("GET", VOLUME + path, token=by, headers=headers)

        for path in ("/os-services", f"/{project}/os-services?host=x&binary=y"):
            reply = await ask(path, "compute 2.69, volume 3.32")
            assert (reply.status_code, reply.json()) == (200, {"services": []})
            assert reply.headers["openstack-api-version"] == "volume 3.32"
        assert (await ask("/os-services")).headers["openstack-api-version"] == "volume 3.0"
        assert (await ask("/os-services", "volume latest")).headers["openstack-api-version"] == "volume 3.71"
        for wrong, status, says in (
            ("volume 3.72", 406, "maximum is 3.71"),
            ("volume 4.0", 406, "maximum is 3.71"),
            ("volume x", 400, "API Version String x is of invalid format"),
        ):
            reply = await ask("/os-services", wrong)
            assert (reply.status_code, says in reason(reply)) == (status, True), wrong
        assert (await ask("/deadbeef/os-services")).status_code == 400
        assert (await ask("/os-services", by=alice)).status_code == 403
        assert set((await ask("/limits", by=alice)).json()["limits"]["absolute"].values()) == {-1, 0}
        for missing in ("/volumes/x", f"/{project}/types/x", "/clusters"):
            reply = await ask(missing)
            assert (reply.status_code, list(reply.json())) == (404, ["itemNotFound"]), missing


# -- metrics ----------------------------------------------------------------------------------------------------------
async def test_metrics_need_no_token_and_can_be_parsed(tmp_path: Path) -> None:
    counts = tuple(range(len(LATENESS_BUCKETS_MS) + 1))
    measured = LivenessMetrics(
        beats_total=700,
        beats_refused_total=3,
        transitions={"dead": 4},
        flaps_total=2,
        holds_total=1,
        lateness_counts=counts,
        lateness_sum_ms=1500,
        loop_lag_s=0.002,
        loop_lag_max_s=0.25,
        tasks=(TaskMetrics("h1", 'a "quoted"\ntask', 9, 8, 7, 6, 0.5, "nova-compute"),),
    )
    async with in_world(tmp_path) as world:
        await control_too(world)

        async def scrape() -> dict[tuple[str, str], float]:
            reply = await world.http.get("/metrics")
            assert reply.status_code == 200
            assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
            return {
                (sample.name, ",".join(sample.labels.values())): sample.value
                for family in text_string_to_metric_families(reply.text)
                for sample in family.samples
            }

        async def tell() -> LivenessMetrics:
            return measured

        assert (await scrape())["droveway_beats_total", ""] == 0
        world.control.liveness_metrics = tell
        found = await scrape()
        expected = {
            ("droveway_beats_total", ""): 700,
            ("droveway_beats_refused_total", ""): 3,
            ("droveway_services", "alive"): 4,
            ("droveway_services", "host gone"): 1,
            ("droveway_services", "hung"): 0,
            ("droveway_service_transitions_total", "dead"): 4,
            ("droveway_service_transitions_total", "hung"): 0,
            ("droveway_service_flaps_total", ""): 2,
            ("droveway_holds_total", ""): 1,
            ("droveway_beat_lateness_seconds_bucket", "0.005"): 1,
            ("droveway_beat_lateness_seconds_sum", ""): 1.5,
            ("droveway_beat_lateness_seconds_bucket", "+Inf"): sum(counts),
            ("droveway_beat_lateness_seconds_count", ""): sum(counts),
            ("droveway_loop_lag_seconds", ""): 0.002,
            ("droveway_loop_lag_seconds_max", ""): 0.25,
            ("droveway_task_runs_total", 'h1,nova-compute,a "quoted"\ntask'): 9,
            ("droveway_task_errors_total", 'h1,nova-compute,a "quoted"\ntask'): 8,
            ("droveway_task_overruns_total", 'h1,nova-compute,a "quoted"\ntask'): 7,
            ("droveway_task_timeouts_total", 'h1,nova-compute,a "quoted"\ntask'): 6,
            ("droveway_task_last_duration_seconds", 'h1,nova-compute,a "quoted"\ntask'): 0.5,
        }
        assert {key: found[key] for key in expected} == expected
        (h2,) = await world.store.read(services.list_all, "h2")
        await world.store.run(services.set_, h2["uuid"], forced_down=True)
        measured = msgspec.structs.replace(measured, tasks=measured.tasks * 5000)
        found = await scrape()
        assert (found["droveway_services", "forced down"], found["droveway_services", "host gone"]) == (1, 0)


async def test_each_list_shows_the_kinds_that_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that is a line of the table is in the lists, and in what may be done to it."""
    monkeypatch.setitem(service_kinds.KINDS, "cinder-volume", Kind("volume", ListedBy.VOLUME, has_backends=True))
    async with in_world(tmp_path) as world:
        token = await world.token()
        names = {"h1": ("droveway-scripts", "cinder-volume@fast", "cinder-volume@slow")}
        await world.store.run(services.register_all, names, "nova")
        await world.store.run(
            services.record_verdicts, [services.Verdict("h1", "cinder-volume@fast", State.ALIVE, "its beat arrives", 7)]
        )

        async def listed(path: str) -> list[tuple[str, str, str]]:
            found = (await world.ask("GET", path, token=token)).json()["services"]
            return sorted((one["host"], one["binary"], one["zone"]) for one in found if one["host"][:2] == "h1")

        compute = [("h1", "droveway-scripts", "internal"), ("h1", "nova-compute", "nova")]
        volume = [("h1@fast", "cinder-volume", "internal"), ("h1@slow", "cinder-volume", "internal")]
        assert await listed(f"{NOVA}/os-services") == compute
        assert await listed(f"{VOLUME}/os-services") == volume
        assert await listed(f"{VOLUME}/os-services?host=h1@fast") == volume[:1]
        assert await listed(OWN) == sorted(compute + volume)
        (up, down) = (await world.ask("GET", f"{VOLUME}/os-services", token=token)).json()["services"]
        assert (up["state"], down["state"], up["status"], down["updated_at"]) == ("up", "down", "enabled", None)
        rows = {row["binary"]: row["uuid"] for row in await world.store.read(services.list_all)}
        for binary, change, status in (
            ("droveway-scripts", {"forced_down": True}, 200),
            ("droveway-scripts", {"status": "disabled"}, 400),
            ("droveway-scripts", {"status": "enabled"}, 200),
            ("cinder-volume", {"forced_down": True}, 400),
        ):
            reply = await world.ask(
                "PUT", f"{NOVA}/os-services/{rows[binary]}", json=change, token=token, version="2.53"
            )
            assert reply.status_code == status, reply.text
        (compute_row,) = await world.store.read(services.list_all, "h1", "nova-compute")
        assert not compute_row["forced_down"]
