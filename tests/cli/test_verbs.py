"""Each verb with --json, and the verbs about users, join tokens, hosts and files, as an operator types them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from droveway.domain.liveness import State
from droveway.domain.model import SagaKind, of_instance
from droveway.domain.placement import PlacementRequest, Plan
from droveway.domain.volume.placement import VolumeRequest
from droveway.domain.volume.quota import VolumeQuotas
from droveway.main import droveway
from droveway.store.compute import instances, migrations
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import aggregates, joining, services
from droveway.store.schema import sagas as saga_rows
from droveway.store.volume import making
from droveway.store.volume import placements as volume_placements
from droveway.store.volume.making import NewVolume
from droveway.store.work import sagas
from lab.processes import wait_for
from tests.api.test_placements import Placing
from tests.api.test_placements_cli import FINDING, Operator
from tests.api.test_services_cli import SOON_S
from tests.api.world import World, booted, make_image, make_server
from tests.cli.test_commands import LEAVES, WITHOUT_JSON
from tests.test_joining import allow

HOUR_US = 3_600_000_000


class Cloud(Operator):
    """With a server that was placed, a saga that is broken, tasks, and hosts that may join."""

    server_id = saga_id = ""

    def do(self, story: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(story, self.loop).result(SOON_S)

    async def fill(self) -> None:
        world, store = self.world, self.world.store
        allow(world)
        token = await world.token()
        placing = Placing(world, token)
        self.server_id = await make_server(world, token, await make_image(world, token))
        assert await placing.decide(self.server_id, PlacementRequest(1, 128, 1)) is not None
        await booted(world, self.server_id)
        world.control.list_tasks = tasks
        self.saga_id = await store.run(self._broken)
        self.finds(FINDING)
        rack = await store.run(aggregates.create, "rack-1", None)
        await store.run(aggregates.add_host, rack["id"], "h1")
        await store.run(_place_volume)

    def _broken(self, tx: Tx) -> str:
        saga_id = sagas.enqueue(tx, SagaKind.STOP, of_instance(self.server_id), "p", {}, request_id="req-1")
        tx.execute(saga_rows.update().where(saga_rows.c.id == saga_id).values(status="broken", broken_while="forward"))
        return saga_id


def _place_volume(tx: Tx) -> None:
    row = making.create(tx, NewVolume("p", "u", 1, name="data-1"), VolumeQuotas())
    tx.execute(saga_rows.delete().where(saga_rows.c.subject_id == row["id"]))
    body = {"kind": "create_volume", "ask": VolumeRequest(1), "plan": Plan(1)}
    volume_placements.record(tx, row["id"], "p", "h1@fast", msgspec.to_builtins(body))


def _move(tx: Tx, server_id: str) -> None:
    row = instances.get(tx, server_id)
    saga_id = sagas.enqueue(tx, SagaKind.LIVE_MIGRATION, of_instance(server_id), "p", {}, request_id="req-2")
    migrations.create(tx, row, saga_id, {"destination": "h2"})
    migrations.set_(tx, saga_id, status="completed")
    tx.execute(saga_rows.update().where(saga_rows.c.id == saga_id).values(status="done", ended=True))


async def tasks(host: str) -> list[dict[str, Any]]:
    return [
        {
            "name": "sweep_bases",
            "kind": "built in",
            "every_s": 3600.0,
            "last_started_us": None,
            "last_duration_s": None,
            "overruns": 0,
            "errors": 0,
            "running_since_us": None,
            "next_due_in_s": 5.0,
            "last_error": "",
            "last_line": "",
        }
    ]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    made = Cloud(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLOUD", "droveway")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    try:
        made.do(made.fill())
        yield made
    finally:
        made.stop()


def says(*words: str, code: int = 0, **more: Any) -> Result:
    told = CliRunner().invoke(droveway, words, prog_name="droveway", **more)
    assert told.exit_code == code, (words, told.output, told.exception)
    return told


def from_json(*words: str, code: int = 0) -> Any:
    told = says(*words, "--json", code=code)
    assert told.stderr == ""
    return json.loads(told.stdout)


def test_what_each_verb_says_as_json_is_json(cloud: Cloud, tmp_path: Path) -> None:
    """In an order in which each has something to do; a verb that is new and not asked here fails the last line."""
    good, agent = tmp_path / "good.toml", tmp_path / "agent.toml"
    good.write_text(f'state_path = "{tmp_path}"\n')
    joined: dict[str, Any] = {}

    def ask(*words: str, code: int = 0) -> Any:
        asked.add(words[: 3 if words[0] == "agent" and words[1] == "token" else 1 if words[0] in ONE_WORD else 2])
        return from_json(*words, code=code)

    asked: set[tuple[str, ...]] = set()
    assert {one["host"] for one in ask("service", "list")} == {"h1", "h2"}
    assert ask("service", "why", "h1")[0]["verdict"]["reason"] == "nobody reaches it"
    assert [one["name"] for one in ask("host", "list")] == ["h1", "h2"]
    assert ask("host", "show", "h1")["servers"][0]["id"] == cloud.server_id
    assert ask("placement", "try", "--flavor", "tiny")["placements"][0]["host"] in ("h1", "h2")
    assert ask("placement", "list")["placements"][0]["server_id"] == cloud.server_id
    assert ask("placement", "show", "g1")["placements"][0]["host"] is not None
    assert ask("placement", "volume", "data-1")["placements"][0]["host"] == "h1@fast"
    assert ask("placement", "try-volume", "--size", "2")["placement"]["hosts"] == 0
    assert ask("placement", "replay", "g1")["then"]["host"] is not None
    assert ask("migration", "plan", "g1")["hosts"][0]["verdict"] == "unknown"
    assert ask("aggregate", "cpu-baseline", "rack-1")["hosts"][0]["host"] == "h1"
    assert ask("migration", "predictions") == {"predictions": [], "median_error_percent": None}
    assert ask("host", "migratable", "h1")["servers"][0]["name"] == "g1"
    cloud.do(cloud.world.store.run(_move, cloud.server_id))
    assert ask("migration", "list", "--all")[0]["status"] == "completed"
    assert ask("migration", "watch", "g1")["server"]["id"] == cloud.server_id
    assert ask("task", "list", "h1")[0]["name"] == "sweep_bases"
    assert ask("audit", code=1)["findings"][0]["key"] == FINDING["key"]
    assert ask("image", "quota", "red")["image_count_total"]["usage"] == 0
    assert ask("saga", "list")[0]["id"] == cloud.saga_id
    assert ask("saga", "show", cloud.saga_id)["status"] == "broken"
    assert ask("saga", "retry", cloud.saga_id)["status"] == "forward"
    assert ask("saga", "cancel", cloud.saga_id)["cancel"] == "an operator cancelled it"
    assert ask("user", "create", "carla", "--project", "red")["password"]
    assert ask("user", "password", "carla")["password"]
    assert "carla" in [one["name"] for one in ask("user", "list")]
    assert ask("user", "delete", "carla")["name"] == "carla"
    made = ask("agent", "token", "create", "--host", "n1")
    assert [one["id"] for one in ask("agent", "token", "list")] == [made["id"]]
    url = ("--url", f"http://127.0.0.1:{cloud.port}", "--config", str(agent))
    joined = ask("agent", "join", *url, "--token", made["token"], "--host", "n1")
    assert joined["config"] == str(agent) and agent.exists()
    other = ask("agent", "token", "create", "--any-host")
    assert ask("agent", "token", "revoke", other["id"])["id"] == other["id"]
    cloud.becomes(State.HOST_GONE, "h2")
    assert ask("host", "declare-gone", "h2", "--because", "it burns")["declared"]["word"] == "gone"
    assert ask("host", "readmit", "h2")["declared"]["word"] == "readmitted"
    assert ask("host", "remove", "h2") == {"name": "h2", "services": ["nova-compute"]}
    assert ask("config", "check", str(good))["files"][0]["role"] == "all"
    assert len(ask("nats-keys", str(tmp_path / "nats"))["files"]) > 1
    assert ask("nats-revoke", "h1", "--directory", str(tmp_path / "nats"))["hosts"] == ["h1"]
    assert ask("ca", "init", str(tmp_path / "ca"))["directory"] == str(tmp_path / "ca")
    assert ask("ca", "show")["authorities"] == []
    assert ask("host", "certificates") == []
    asked |= BESIDE_AN_AGENTS_LISTENER
    asked.add(("service", "watch"))  # below: it goes on until it is ended
    asked.add(("backup", "verify"))  # of a store: tests/test_backup_verify.py
    assert asked == {path for path, _ in LEAVES if path[0] not in WITHOUT_JSON}


ONE_WORD = {"audit", "nats-keys", "nats-revoke"}
# They need an API that signs certificates: tests/test_ca.py.
BESIDE_AN_AGENTS_LISTENER = {
    *(("ca", verb) for verb in ("rotate", "use", "retire", "issue", "revoke", "list", "crl")),
    ("agent", "renew"),
}


# -- users ------------------------------------------------------------------------------------------------------------
def test_users_are_listed_with_their_roles_and_deleted(cloud: Cloud) -> None:
    says("user", "create", "dora", "--project", "red")
    lines = says("user", "list").stdout.splitlines()
    assert lines[0].split() == ["User", "Enabled", "Roles", "Id"]
    dora = next(line for line in lines if line.startswith("dora"))
    assert "member of red" in dora
    assert any(line.startswith("admin") and "admin of admin" in line for line in lines)
    user_id = dora.split()[-1]
    assert "what it made stays" in says("user", "delete", user_id).stdout
    gone = says("user", "delete", "dora", code=1)
    assert gone.stderr == "Error: There is no user dora; 'droveway user list' shows those there are.\n"
    own = says("user", "delete", "admin", code=1)
    assert "is the program's own" in own.stderr


def test_who_was_deleted_is_logged_in_no_longer(cloud: Cloud) -> None:
    made = from_json("user", "create", "eve", "--project", "red")

    async def status(world: World, token: str) -> int:
        return (await world.ask("GET", "/identity/v3/auth/tokens", token=token)).status_code

    token = cloud.do(cloud.world.token("eve", "red", made["password"]))
    says("user", "delete", "eve")
    assert cloud.do(status(cloud.world, token)) == 401
    with pytest.raises(AssertionError, match="401"):
        cloud.do(cloud.world.token("eve", "red", made["password"]))
    again = from_json("user", "create", "eve", "--project", "red")
    assert again["id"] != made["id"]


# -- join tokens ------------------------------------------------------------------------------------------------------
def test_join_tokens_are_listed_without_the_token_and_revoked(cloud: Cloud, tmp_path: Path) -> None:
    made = from_json("agent", "token", "create", "--host", "n1")
    listed = says("agent", "token", "list").stdout
    assert made["token"] not in listed and made["id"] in listed and " n1 " in listed and " open " in listed
    assert "is revoked" in says("agent", "token", "revoke", made["id"][:6]).stdout
    url = ("--url", f"http://127.0.0.1:{cloud.port}", "--config", str(tmp_path / "a.toml"))
    refused = says("agent", "join", *url, "--token", made["token"], "--host", "n1", code=1)
    assert "is not known here: see that it was copied whole and not revoked" in refused.stderr
    assert from_json("agent", "token", "list", "--all") == []
    none = says("agent", "token", "revoke", made["id"], code=1)
    assert none.stderr.startswith(f"Error: There is no join token {made['id']};")


def test_a_token_that_was_used_is_told_and_not_revoked(cloud: Cloud, tmp_path: Path) -> None:
    made = from_json("agent", "token", "create", "--any-host")
    url = ("--url", f"http://127.0.0.1:{cloud.port}", "--config", str(tmp_path / "a.toml"))
    says("agent", "join", *url, "--token", made["token"], "--host", "n1")
    assert from_json("agent", "token", "list") == []
    assert "used by n1" in says("agent", "token", "list", "--all").stdout
    refused = says("agent", "token", "revoke", made["id"], code=1)
    assert "was used by host n1" in refused.stderr and "droveway host remove n1" in refused.stderr


def test_an_expired_token_is_listed_as_that_and_two_of_one_beginning_are_told_apart(cloud: Cloud) -> None:
    async def make() -> None:
        for number in range(2):
            await cloud.world.store.run(joining.create, f"aa{number}" + "0" * 61, None, -1)

    cloud.do(make())
    assert [one["state"] for one in from_json("agent", "token", "list", "--all")] == ["expired", "expired"]
    assert from_json("agent", "token", "list") == []
    assert "Several join tokens begin with aa" in says("agent", "token", "revoke", "aa", code=1).stderr
    assert from_json("agent", "token", "revoke", "aa1")["id"] == "aa1000000000"


# -- hosts ------------------------------------------------------------------------------------------------------------
def test_a_host_is_removed_when_it_is_down_and_holds_nothing(cloud: Cloud) -> None:
    up = says("host", "remove", "h2", code=1)
    assert up.stderr == "Error: Service nova-compute on h2 is up; stop it before it is deleted\n"
    cloud.becomes(State.HOST_GONE, "h1")
    holds = says("host", "remove", "h1", code=1)
    assert cloud.server_id in holds.stderr
    assert [one["name"] for one in from_json("host", "list")] == ["h1", "h2"]
    cloud.becomes(State.HOST_GONE, "h2")
    assert says("host", "remove", "h2").stdout == "h2 is forgotten, with nova-compute\n"
    assert {one["host"] for one in from_json("service", "list")} == {"h1"}
    assert says("host", "remove", "h2", code=1).stderr.startswith("Error: there is no host h2;")


def test_a_host_goes_with_its_backends_and_a_control_of_its_name_stays(cloud: Cloud) -> None:
    async def register() -> None:
        for host, binary in (("h2@fast", "nova-compute"), ("h2", "nova-scheduler"), ("h22", "nova-compute")):
            await cloud.world.store.run(services.register, host, binary, "nova")

    cloud.do(register())
    cloud.becomes(State.HOST_GONE, "h2")
    assert len(from_json("host", "remove", "h2")["services"]) == 2
    left = {(one["host"], one["binary"]) for one in from_json("service", "list")}
    assert left == {("h1", "nova-compute"), ("h2", "nova-scheduler"), ("h22", "nova-compute")}


# -- configuration ----------------------------------------------------------------------------------------------------
def test_files_are_checked_without_being_started(tmp_path: Path) -> None:
    control, api, wrong = (tmp_path / f"{name}.toml" for name in ("control", "api", "wrong"))
    common = f'state_path = "{tmp_path}"\nbus = "nats"\n'
    apart = '[agents]\napi_urls = ["https://api.example:8775"]\n'
    control.write_text(f'role = "control"\n{common}{apart}')
    api.write_text(f'role = "api"\n{common}[api]\nlisten = "127.0.0.1:8774"\n')
    wrong.write_text("stat_path = 1\n")
    assert says("config", "check", str(control)).stdout == f"{control} is right: role control, bus nats\n"
    told = says("config", "check", str(control), str(wrong), code=78)
    assert told.stdout.splitlines()[1].startswith(f"wrong: {wrong}: unknown key")
    both = from_json("config", "check", str(control), str(api), code=78)
    assert [one["right"] for one in both["files"]] == [True, True]
    assert both["together"] == [
        "api.listen = 127.0.0.1:8774 is in two of the files; every control, host and address has one file"
    ]
    missing = says("config", "check", str(tmp_path / "none.toml"), code=78)
    assert "there is no such file" in missing.stdout
    assert list(tmp_path.glob("*.sqlite")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "agents.api_urls is missing, so hosts on other machines would fetch images from http://127.0.0.1:8774"),
        ('[api]\nlisten = "10.0.0.1:8774"', "api.url: http://10.0.0.1:8774 is not encrypted"),
        ('[api]\nurl = "http://cloud.example"', "api.url: http://cloud.example is not encrypted"),
        ('[agents]\napi_urls = ["http://a.example:1", "https://b.example"]', "agents.api_urls: http://a.example:1 is"),
        ('[agents]\napi_urls = ["https://b.example"]', ""),
        ('[api]\nurl = "https://cloud.example"', ""),
        ('[agents]\napi_urls = ["http://127.0.0.1:8774"]', ""),
        ('[[host]]\nname = "h1"\nhypervisor = "simulated"', ""),
        ('image_store = "path"', ""),
        ('bus = "socket"', ""),
    ],
)
def test_images_that_travel_in_clear_or_to_nobody_are_a_warning(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "cloud.toml"
    bus = "" if "bus" in text else 'bus = "nats"\n'
    file.write_text(f'state_path = "{tmp_path}"\n{bus}{text}\n')
    told = says("config", "check", str(file)).stdout.splitlines()
    (one,) = from_json("config", "check", str(file))["files"]
    if words:
        assert told[1].startswith(f"warning: {file}: {words}") and len(told) == 2
        assert one["warnings"] == [told[1].removeprefix(f"warning: {file}: ")]
    else:
        assert (told[1:], one["warnings"]) == ([], [])


# -- watching ---------------------------------------------------------------------------------------------------------
def test_watching_tells_programs_a_line_each(cloud: Cloud, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as out:
        words = cloud.command("service", "watch", "--json")
        watching = subprocess.Popen(words, env=cloud.environment, stdout=out, stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: "services" in said.read_text(), SOON_S)
        cloud.becomes(State.DEAD)
        assert wait_for(lambda: "it is dead" in said.read_text(), SOON_S)
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(SOON_S) == 0
    first, second = map(json.loads, said.read_text().splitlines())
    assert {one["host"] for one in first["services"]} == {"h1", "h2"}
    assert (second["change"]["host"], second["change"]["became"]) == ("h1", "down")
