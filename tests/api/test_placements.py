"""Decisions told, requests that wait, dry runs and replays, the audit: over HTTP, with a real placer beside the API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import update

from droveway.control.audit import Audit
from droveway.control.engine.nudges import Nudges
from droveway.control.scheduling.cpu_baselines import CpuBaselines
from droveway.control.scheduling.dry_run import COUNT_MAX, DryRun
from droveway.control.scheduling.move_plan import MovePlanner
from droveway.control.scheduling.move_trials import MoveTrials
from droveway.control.scheduling.placer import Placer
from droveway.domain.faults import Unreachable
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import of_instance
from droveway.domain.placement import PlacementRequest, PlacementSettings
from droveway.ports.bus import Command, Report
from droveway.ports.replies import Answer
from droveway.store.compute import instances, placements
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.schema import sagas as s
from droveway.store.work import sagas
from tests.api.world import World, booted, in_world, make_image, make_server, reason

OWN = "/droveway/v1"
SETTINGS = PlacementSettings(wait_for_capacity_s=60.0)
GREEDY = "The greedy one"


class SilentBus:
    """No host answers."""

    async def command(self, host: str, *_: Any) -> Any:
        raise Unreachable(f"{host} is not connected")


class Placing:
    """A placer, and an administrator who asks."""

    def __init__(self, world: World, token: str) -> None:
        self.world, self.token = world, token
        self.placer = Placer(world.store, world.clock, Nudges(), SETTINGS, 1.0)
        trial = DryRun(world.store, self.placer)
        world.control.try_placement, world.control.replay_placement = trial.attempt, trial.replay
        planner = MovePlanner(world.store, self.placer, MoveTrials(SilentBus()), "", CopyTarget())  # type: ignore[arg-type]
        world.control.cpu_baseline = CpuBaselines(world.store, SilentBus()).of_aggregate  # type: ignore[arg-type]
        world.control.plan_move, world.control.move_matrix = planner.plan, planner.matrix

    async def get(self, path: str) -> httpx.Response:
        return await self.world.ask("GET", OWN + path, token=self.token)

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.world.ask("POST", OWN + path, token=self.token, json=body)

    async def attempt(self, **wanted: Any) -> dict[str, Any]:
        reply = await self.post("/placements/try", {"placement": wanted})
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def refused(self, **wanted: Any) -> tuple[int, str]:
        reply = await self.post("/placements/try", {"placement": wanted})
        return reply.status_code, reason(reply)

    async def decide(self, server_id: str, ask: PlacementRequest) -> str | None:
        """What choose_host of the boot saga does, and what the runner keeps of it."""

        def write(tx: Tx) -> str | None:
            decision = self.placer.choose(tx, ask)
            saga = sagas.active_of(tx, of_instance(server_id))
            assert saga is not None
            body = msgspec.to_builtins(decision.body("boot", SETTINGS))
            placements.record(tx, server_id, saga["id"], saga["project_id"], decision.host, body)
            if decision.host is not None:
                instances.set_(tx, server_id, host=decision.host)
            else:
                blocked = f"choose_host waits for room: {decision.reason}"
                tx.execute(update(s).where(s.c.id == saga["id"]).values(blocked=blocked))
            return decision.host

        await self.placer.refresh()
        return await self.world.store.run(write)


@contextlib.asynccontextmanager
async def placing(tmp_path: Path) -> AsyncIterator[Any]:
    async with in_world(tmp_path) as world:
        yield Placing(world, await world.token())


TINY, HUGE = PlacementRequest(1, 128, 1), PlacementRequest(1, 10**6, 1)


async def test_a_decision_is_told_with_its_reasons(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        image = await make_image(p.world, p.token)
        server = await make_server(p.world, p.token, image, "web")
        chosen = await p.decide(server, msgspec.structs.replace(TINY, never={"h1": "it is not liked"}))
        assert chosen == "h2"
        for named in (server, "web"):
            told = (await p.get(f"/placements/{named}")).json()
            assert told["server"] == {"id": server, "name": "web", "host": "h2"}
            one = told["placements"][0]
        assert (one["kind"], one["host"], one["hosts"], one["fitting"]) == ("boot", "h2", 2, 1)
        assert one["request"] == "1 vcpu, 128 MiB memory, 1 GiB disk; never on h1 (it is not liked)"
        assert [(fell["rule"], fell["hosts"], fell["left"]) for fell in one["fallen"]] == [("never", 1, 1)]
        assert one["fallen"][0]["nearest"] == [{"host": "h1", "reason": "it is not liked"}]
        assert [choice["name"] for choice in one["ranked"]] == ["h2"]
        for host, rule, said in (("h1", "never", "it is not liked"), ("h2", None, "h2 fitted, number 1 of 1")):
            of_host = (await p.get(f"/placements/web?host={host}")).json()["placements"][0]["of_host"]
            assert of_host == {"host": host, "rule": rule, "reason": said}


async def test_the_newest_decision_or_every_kept_one(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        server = await make_server(p.world, p.token, await make_image(p.world, p.token))
        for _ in range(3):
            await p.decide(server, TINY)
        assert len((await p.get(f"/placements/{server}")).json()["placements"]) == 1
        every = (await p.get(f"/placements/{server}?all=1")).json()["placements"]
        assert len(every) == 3 and every[0]["at_us"] >= every[-1]["at_us"]
        brief = (await p.get("/placements?limit=2")).json()["placements"]
        assert [one["name"] for one in brief] == ["g1", "g1"] and brief[0]["fitting"] == 2
        p.world.clock.ahead_us += 1_000_000

        def add(tx: Tx) -> None:
            hosts.join(tx, "h3", "nova")
            services.register(tx, "h3", "nova-compute", "nova")

        await p.world.store.run(add)
        late = (await p.get(f"/placements/{server}?host=h3")).json()["placements"][0]["of_host"]
        assert late["rule"] is None and "was not there when this was decided" in late["reason"]


async def test_wrong_names_are_one_clear_reason(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        image = await make_image(p.world, p.token)
        server = await make_server(p.world, p.token, image, "twin")
        for path, status, said in (
            ("/placements/nobody", 404, "There is no server 'nobody'; 'openstack server list --all-projects' shows"),
            (f"/placements/{server}", 404, "No decision about server twin is kept"),
            ("/placements?limit=0", 400, "Invalid input for limit: 0 is not between 1 and 1000."),
            ("/placements?limit=x", 400, "Invalid input for limit: 'x' is not a whole number."),
            (f"/placements?limit={'9' * 5000}", 400, "Invalid input for limit: '999"),
            (f"/sagas?limit={'9' * 5000}", 400, "Invalid input for limit: '999"),
            ("/placements/a%2Fb", 404, "There is no server 'a/b'"),
        ):
            reply = await p.get(path)
            assert (reply.status_code, reason(reply)[: len(said)]) == (status, said)
        await p.decide(server, TINY)
        reply = await p.get(f"/placements/{server}?host=h9")
        assert reply.status_code == 404 and "there is no host h9" in reason(reply)
        await make_server(p.world, p.token, image, "twin")
        reply = await p.get("/placements/twin")
        assert reply.status_code == 409 and "Several servers are named 'twin': give the id" in reason(reply)

        assert await p.refused(flavor="nope") == (
            404,
            "There is no flavor 'nope'; 'openstack flavor list --all' shows those there are.",
        )
        assert (await p.refused(flavor="tiny", image="nope"))[0] == 404
        assert (await p.refused(flavor="tiny", host="h9"))[1].startswith("there is no host h9")
        assert await p.refused(flavor="tiny", zone="mars") == (404, "There is no zone 'mars'; there is nova.")
        assert (await p.refused(flavor="tiny", group="nope"))[0] == 404
        assert (await p.refused())[1].startswith("Name a flavor, or a server")
        assert (await p.refused(flavor="tiny", server="twin"))[1].startswith("Name a flavor, or a server")
        assert await p.refused(server=server, zone="nova", host="h1") == (
            400,
            "A server's request is tried again as it was: leave out zone, host.",
        )
        assert (await p.refused(flavor="tiny", count=COUNT_MAX + 1))[0] == 400
        assert (await p.refused(flavor="tiny", colour="red"))[1].startswith("This is no request that can be tried")
        for body in ({}, [], {"placement": 1}, {"replay": {}}, {"placement": {}, "replay": "x"}):
            assert (await p.post("/placements/try", body)).status_code == 400


async def test_a_dry_run_changes_nothing_and_spreads(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        before = await p.world.store.read(hosts.facts_of_all)
        told = await p.attempt(flavor="tiny", image=await make_image(p.world, p.token), zone="nova", count=10)
        assert [one["count"] for one in told["spread"]] == [5, 5]
        assert all(one["kind"] == "try" and one["host"] for one in told["placements"])
        assert "in zone nova" in told["placements"][0]["request"]
        refused = (await p.attempt(flavor="medium", count=9))["placements"][-1]
        assert refused["host"] is None and refused["reason"].startswith("No valid host was found: ")
        assert await p.world.store.read(hosts.facts_of_all) == before
        assert (await p.get("/placements")).json() == {"placements": []}


async def test_a_host_that_is_asked_for_says_why_not(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        one = (await p.attempt(flavor="tiny", host="h2"))["placements"][0]
        assert one["host"] == "h2" and "on h2 and nowhere else" in one["request"]
        server = await make_server(p.world, p.token, await make_image(p.world, p.token), "web", host="h2")
        again = (await p.attempt(server="web"))["placements"][0]
        assert again["host"] == "h2" and again["request"].startswith("1 vcpu, 128 MiB memory, 1 GiB disk")
        assert (await p.get(f"/placements/{server}")).status_code == 404


async def test_properties_lie_over_those_of_the_image(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        image = await make_image(p.world, p.token, hw_architecture="x86_64")
        assert (await p.attempt(flavor="tiny", image=image))["placements"][0]["host"]
        one = (await p.attempt(flavor="tiny", image=image, properties={"hw_architecture": "aarch64"}))["placements"][0]
        assert one["host"] is None and [fell["rule"] for fell in one["fallen"]] == ["architecture"]
        assert "architecture aarch64" in one["request"]


async def test_a_replay_tells_what_differs(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        server = await make_server(p.world, p.token, await make_image(p.world, p.token), "web")
        assert await p.decide(server, msgspec.structs.replace(TINY, only="h1")) == "h1"
        told = (await p.post("/placements/try", {"replay": "web"})).json()
        assert told["then"]["host"] == told["now"]["host"] == "h1"
        assert told["now"]["seed"] == told["then"]["seed"]
        assert told["differs"] == {"changed": [], "hosts_changed": 0}

        def shrink(tx: Tx) -> None:
            host_reports.report(tx, "h1", {**hosts.get(tx, "h1")["resources"], "memory_mb": 600}, True, "")
            hosts.join(tx, "h3", "nova")

        await p.world.store.run(shrink)
        await booted(p.world, server, "h1")
        told = (await p.post("/placements/try", {"replay": server})).json()
        assert told["now"]["host"] is None and told["then"]["host"] == "h1"
        assert told["differs"]["changed"] == [{"then": "fits", "now": "ram", "hosts": 1, "named": ["h1"]}]


async def test_requests_that_wait_are_listed_with_since_why_and_until(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        server = await make_server(p.world, p.token, await make_image(p.world, p.token), GREEDY)
        assert (await p.get("/placements?blocked=1")).json() == {"waiting": []}
        assert await p.decide(server, HUGE) is None
        (one,) = (await p.get("/placements?blocked=1")).json()["waiting"]
        assert (one["server_id"], one["name"], one["kind"]) == (server, GREEDY, "boot")
        assert one["until_us"] - one["since_us"] == 60_000_000
        assert one["reason"].startswith("No valid host was found: ") and "1000000 MiB" in one["request"]
        shown = (await p.get(f"/placements/{server}")).json()
        assert shown["waiting"] == one
        told = shown["placements"][0]
        assert told["host"] is None and told["would_fit"] and told["reason"] == one["reason"]
        await booted(p.world, server, "h1")
        assert (await p.get(f"/placements/{server}")).json()["waiting"] is None


async def test_only_administrators_look(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        alice = await p.world.token("alice", "red")
        for method, path in (
            ("GET", "/placements"),
            ("GET", "/placements/x"),
            ("POST", "/placements/try"),
            ("GET", "/audit"),
            ("POST", "/audit/repair"),
        ):
            reply = await p.world.ask(method, OWN + path, token=alice, json={} if method == "POST" else None)
            assert reply.status_code == 403, path


class NobodyAnswers:
    """The bus of a cloud whose agents are all away."""

    trouble = ""

    async def serve(self, on_notice: Any) -> None:
        pass

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        raise Unreachable(f"{host} did not answer")

    async def close(self) -> None:
        pass


async def compares_nothing(report: Report) -> None:
    pass


async def test_an_audit_of_rows_alone(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        store = p.world.store
        audit = Audit(store, NobodyAnswers(), p.world.clock, compares_nothing, SETTINGS)
        p.world.control.audit, p.world.control.repair = audit, audit.repair
        image = await make_image(p.world, p.token)
        server, busy = [await make_server(p.world, p.token, image, name) for name in ("web", "busy")]
        await booted(p.world, server)
        found = (await p.get("/audit")).json()
        assert found["findings"] == [] and found["instances"] == 2 and found["hosts_answered"] == 0
        assert found["not_looked_at"] == [{"host": h, "because": f"{h} did not answer"} for h in ("h1", "h2")]

        def spoil(tx: Tx) -> None:
            instances.set_(tx, server, task_state="migrating")
            instances.set_(tx, busy, task_state="deleting")

        await store.run(spoil)
        (one,) = (await p.get("/audit")).json()["findings"]
        assert one["kind"] == "forgotten task" and one["what"] == f"server web ({server})" and one["where"] == "h1"
        told = (await p.post("/audit/repair", {"keys": [one["key"]]})).json()
        assert [finding["key"] for finding in told["done"]] == [one["key"]]
        assert (await store.read(instances.get, server))["task_state"] is None


async def test_the_audit_over_http(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        reply = await p.get("/audit")
        assert reply.status_code == 503 and "No control runs beside this API" in reason(reply)

        async def audit() -> dict[str, Any]:
            return {"findings": []}

        async def repair(keys: list[str]) -> dict[str, Any]:
            return {"done": [], "left": [], "gone": keys}

        p.world.control.audit, p.world.control.repair = audit, repair
        assert (await p.get("/audit")).json() == {"findings": []}
        assert (await p.post("/audit/repair", {"keys": ["a"]})).json()["gone"] == ["a"]
        for body in ({}, {"keys": "a"}, {"keys": [1]}, {"keys": [], "more": 1}, []):
            assert (await p.post("/audit/repair", body)).status_code == 400
