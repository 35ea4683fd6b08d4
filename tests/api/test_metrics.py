"""What /metrics tells is what docs/metrics.md says, in a bounded number of series; alerts and the dashboard ask for
what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update

from droveway.api.http.latency import EDGES_S, Latency
from droveway.domain.liveness import State
from droveway.domain.metrics import LivenessMetrics, TaskMetrics
from droveway.domain.model import SagaKind, of_instance
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services, totals
from droveway.store.schema import instances as instance_rows
from droveway.store.schema import sagas as saga_rows
from droveway.store.work import saga_ages, sagas
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server

DOCS = Path(__file__).parents[2] / "docs"
ALERTS, DASHBOARD = DOCS / "monitoring" / "alerts.yml", DOCS / "monitoring" / "dashboard.json"
SUFFIXES = ("_bucket", "_count", "_sum", "_total")
OF_PARSER = {"le"}  # a label of every histogram
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(world: World) -> tuple[Samples, dict[str, str]]:
    """Each sample by name and labels; and the type of each family."""
    reply = await world.http.get("/metrics")
    assert reply.status_code == 200, reply.text
    families = list(text_string_to_metric_families(reply.text))
    samples = {(one.name, tuple(sorted(one.labels.items()))): one.value for each in families for one in each.samples}
    return samples, {each.name: each.type for each in families}


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """name -> (type, labels), from the table of the page."""
    row = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\| ", re.MULTILINE)
    return {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in row.findall((DOCS / "metrics.md").read_text())
    }


async def test_the_page_lists_each_metric_with_its_type_and_labels(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)))
        measured = LivenessMetrics(tasks=(TaskMetrics("h1", "sweep", 1, 0, 0, 0, 0.5),))

        async def tell() -> LivenessMetrics:
            return measured

        world.control.liveness_metrics = tell
        samples, types = await scrape(world)
        labels: dict[str, set[str]] = {}
        for name, pairs in samples:
            labels.setdefault(name, set()).update(key for key, _ in pairs)
        found = {}
        for name, kind in types.items():
            shown = f"{name}_total" if kind == "counter" else name
            of = f"{name}_bucket" if kind == "histogram" else shown
            found[shown] = (kind, frozenset(labels[of] - OF_PARSER))
        assert found == documented()


async def test_who_has_no_token_learns_of_no_project(tmp_path: Path) -> None:
    """Unless the configuration says so: /metrics is open, and ids of projects stand in URLs and reports."""
    async with in_world(tmp_path) as world:
        token = await world.token()
        image = await make_image(world, token)
        for number in range(2):
            await make_server(world, token, image, f"g{number}")
        samples, _ = await scrape(world)
        told = {key: value for key, value in samples.items() if key[0].startswith("droveway_project")}
        assert {pairs for _, pairs in told} == {(("project", "(all)"),)}
        assert told["droveway_project_servers", (("project", "(all)"),)] == 2
        shown = await world.ask("GET", "/identity/v3/auth/tokens", token=token, headers={"x-subject-token": token})
        assert shown.json()["token"]["project"]["id"] not in (await world.http.get("/metrics")).text


async def test_what_hosts_and_projects_hold_is_told_in_bytes(tmp_path: Path) -> None:
    async with in_world(tmp_path, metrics_by_project=True) as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)), "h2")
        samples, _ = await scrape(world)
        on_h2 = {name: value for (name, pairs), value in samples.items() if ("host", "h2") in pairs}
        assert on_h2 == {
            "droveway_host_vcpus": 2,
            "droveway_host_memory_bytes": 4096 * 1024**2,
            "droveway_host_disk_bytes": 40 * 1024**3,
            "droveway_host_servers": 1,
            "droveway_host_vcpus_used": 1,
            "droveway_host_memory_used_bytes": 128 * 1024**2,
            "droveway_host_disk_used_bytes": 1024**3,
        }
        assert samples["droveway_host_servers", (("host", "h1"),)] == 0
        assert samples["droveway_hosts", ()] == 2
        (project,) = [
            (dict(pairs)["project"], value)
            for (name, pairs), value in samples.items()
            if name == "droveway_project_memory_used_bytes"
        ]
        assert re.fullmatch(r"[0-9a-f]{32}", project[0]) and project[1] == 128 * 1024**2


async def test_a_large_cloud_has_a_bounded_number_of_series(tmp_path: Path) -> None:
    """What is beyond the bound is summed, so that nothing is missing from the sum of all."""
    more = 7

    def fill(tx: Tx) -> None:
        names = [f"x{number:04}" for number in range(totals.SHOWN_MAX + more - 2)]  # beside h1 and h2
        hosts.join_all(tx, names, "nova")
        services.register_all(tx, dict.fromkeys(names, (hosts.COMPUTE,)), "nova")
        common: dict[str, Any] = {
            "user_id": "u",
            "hostname": "n",
            "metadata": {},
            "tags": [],
            "reservation_id": "r",
            "flavor": {},
            "flavor_id": "f",
            "vcpus": 1,
            "ram_mb": 1,
            "disk_gb": 1,
            "vm_state": "active",
            "created_at_us": 1,
            "updated_at_us": 1,
        }
        tx.execute(
            insert(instance_rows),
            [
                {
                    **common,
                    "id": f"i{number}",
                    "number": 1000 + number,
                    "name": f"n{number}",
                    "host": name,
                    "project_id": f"p{number:04}",
                }
                for number, name in enumerate([*names, "h1", "h2"])
            ],
        )

    async with in_world(tmp_path, metrics_by_project=True) as world:
        await world.store.run(fill)
        samples, _ = await scrape(world)
        for label in ("host", "project"):
            told = {
                dict(pairs)[label]: value
                for (name, pairs), value in samples.items()
                if name == f"droveway_{label}_servers"
            }
            assert len(told) == totals.SHOWN_MAX + 1
            assert told["(other)"] == more
            assert sum(told.values()) == totals.SHOWN_MAX + more
        assert samples["droveway_hosts", ()] == totals.SHOWN_MAX + more


async def test_sagas_are_counted_by_state_and_age_each_once(tmp_path: Path) -> None:
    ages_s = {"forward": (5, 59, 61, 3_599, 3_601, 90_000), "broken": (700,)}
    async with in_world(tmp_path) as world:
        token = await world.token()
        image = await make_image(world, token)
        servers = [await make_server(world, token, image, f"g{number}") for number in range(7)]

        def age(tx: Tx) -> None:
            wanted = [(status, age_s) for status, each in ages_s.items() for age_s in each]
            for server, (status, age_s) in zip(servers, wanted, strict=True):
                tx.execute(
                    update(saga_rows)
                    .where(saga_rows.c.subject_id == server)
                    .values(
                        status=status,
                        created_at_us=tx.now_us - age_s * 1_000_000,
                        blocked="h1 is away" if status == "broken" else None,
                    )
                )
            sagas.enqueue(tx, SagaKind.DELETE, of_instance(servers[0]), "p", {}, request_id="")

        await world.store.run(age)
        samples, _ = await scrape(world)

        def told(status: str) -> dict[str, float]:
            return {
                dict(pairs)["age"]: value
                for (name, pairs), value in samples.items()
                if name == "droveway_sagas" and ("status", status) in pairs
            }

        assert told("forward") == {"1m": 2, "10m": 1, "1h": 1, "1d": 1, "older": 1}
        assert told("broken") == {"1m": 0, "10m": 0, "1h": 1, "1d": 0, "older": 0}
        assert told("queued") == {"1m": 1, "10m": 0, "1h": 0, "1d": 0, "older": 0}
        assert told("backward") == dict.fromkeys((*saga_ages.AGES_S, saga_ages.OLDER), 0)
        assert samples["droveway_saga_oldest_seconds", (("status", "forward"),)] == pytest.approx(90_000, abs=60)
        assert samples["droveway_sagas_blocked", (("status", "broken"),)] == 1
        assert samples["droveway_sagas_blocked", (("status", "forward"),)] == 0


async def test_requests_are_timed_by_service_and_method_whatever_their_path(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for number in range(3):
            await world.ask("GET", f"{NOVA}/servers/{number}", token=token)  # each another path: 404
        await world.ask("GET", "/nowhere", token=token)
        await world.http.request("FROB", f"{NOVA}/servers")
        samples, _ = await scrape(world)
        answered = {pairs: value for (name, pairs), value in samples.items() if name == "droveway_api_requests_total"}
        assert answered[(("code", "4xx"), ("method", "GET"), ("service", "compute"))] == 3
        assert answered[(("code", "4xx"), ("method", "GET"), ("service", "droveway"))] == 1
        assert answered[(("code", "4xx"), ("method", "other"), ("service", "compute"))] == 1
        assert answered[(("code", "2xx"), ("method", "POST"), ("service", "identity"))] == 1
        assert samples["droveway_api_request_seconds_count", (("method", "GET"), ("service", "compute"))] == 3


def test_a_time_falls_into_the_first_bucket_that_holds_it() -> None:
    latency = Latency()
    for took_s in (0.0, EDGES_S[0], EDGES_S[0] + 1e-9, EDGES_S[-1] + 1):
        latency.record("compute", "GET", 200, took_s)
    counts = latency.times["compute", "GET"].counts
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (2, 1, 1, 4)
    assert latency.times["compute", "GET"].codes == {"2xx": 4}


# -- what asks for them -----------------------------------------------------------------------------------------------
def expressions() -> list[str]:
    alerts = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return alerts + [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_alerts_and_dashboard_ask_for_metrics_labels_and_states_that_there_are() -> None:
    known, asked = documented(), set()
    for expression in expressions():
        for name, selector in re.findall(r"\b(droveway_\w+)(?:\{([^}]*)\})?", expression):
            base = next((name.removesuffix(end) for end in SUFFIXES if name.removesuffix(end) in known), name)
            base = name if name in known else base
            assert base in known, f"{name} in {expression}"
            asked.add(base)
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                assert label in known[base][1], f"{label} of {name} in {expression}"
                if label == "state":
                    assert set(value.split("|")) <= {*State, "forced down"}, expression
                if label == "status":
                    assert set(value.split("|")) <= set(saga_ages.OPEN), expression
        labels = {label for words in re.findall(r"\bby \(([^)]*)\)", expression) for label in words.split(", ")}
        assert labels <= OF_PARSER.union(*(of for _, of in known.values())), expression
    assert len(asked) > 15


def test_each_panel_has_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def run(*words: str, directory: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=directory, input=text, capture_output=True, text=True, check=False, timeout=120)


def promtool_in(directory: Path) -> str:
    """Debian's; only this file of its package, which brings a server and half a website."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    if shutil.which("apt-get") is None:
        pytest.skip("there is no promtool, and no apt-get to fetch it with")
    fetched = run("apt-get", "-qq", "download", "prometheus", directory=directory)
    packages = list(directory.glob("prometheus_*.deb"))
    if not packages:
        pytest.skip(f"there is no promtool, and it cannot be fetched: {fetched.stderr.strip()[:200]}")
    run("sh", "-c", f"dpkg-deb --fsys-tarfile {packages[0].name} | tar x ./usr/bin/promtool", directory=directory)
    return str(directory / "usr" / "bin" / "promtool")


@pytest.mark.servers
async def test_promtool_accepts_the_alerts_and_what_is_told(tmp_path: Path) -> None:
    promtool = promtool_in(tmp_path)
    checked = run(promtool, "check", "rules", str(ALERTS), directory=tmp_path)
    assert checked.returncode == 0 and "9 rules found" in checked.stdout, checked.stdout + checked.stderr
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions())
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = run(promtool, "check", "rules", "panels.yml", directory=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    texts: list[str] = []
    async with in_world(tmp_path / "world") as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)))
        texts.append((await world.http.get("/metrics")).text)
    told = run(promtool, "check", "metrics", directory=tmp_path, text=texts[0])
    assert told.returncode == 0, told.stderr
