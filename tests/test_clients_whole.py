"""Every client that can be had, as it is published and as its users use it, against the whole program with imagined
hosts: what works and what does not, which docs/clients.md tells. `./dev test --clients-full`, which takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab import clients_page, other_clients
from lab.clients_page import CLIENTS as TOLD
from lab.clients_page import PAGE, RESULTS, Outcome
from lab.nodes import free_ports
from tests.clients_cloud import Cloud

CLONE = Path(__file__).parents[1]
SCRIPTS = CLONE / "tests/clients"
CLIENT_S, SOON_S = 900.0, 60.0
OF_SDK = ("compute", "identity", "image", "network", "block_storage.v3", "placement", "cloud")

Play = Callable[[Cloud, Path], list[Outcome]]


class WholeCloud(Cloud):
    has_volumes = True


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = WholeCloud(tmp_path_factory.mktemp("cloud"))
    made.open()
    made.make_outside()
    yield made
    made.close()


def _run(*command: str | Path, at: Path = CLONE, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=os.environ | env, cwd=at, capture_output=True, text=True, check=False, timeout=CLIENT_S
    )


def _steps(done: subprocess.CompletedProcess[str]) -> list[Outcome]:
    """What a script has said of each."""
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step"')]
    assert found and done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [Outcome(one["step"], one.get("ok"), one.get("said", "")) for one in found]


def _key() -> str:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{line.decode()} me"


# -- each client ------------------------------------------------------------------------------------------------------
def _openstack(cloud: Cloud, home: Path) -> list[Outcome]:
    found = []
    for line in (SCRIPTS / "openstack.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("@"):
                words, _, wanted = line[1:].strip().partition(" :: ")
                name, _, value = wanted.partition("=")
                _until(lambda words=words, name=name, value=value: str(cloud.openstack(*words.split())[name]) == value)
            else:
                cloud.openstack(*line.split())
        except AssertionError as error:
            found.append(Outcome(line, False, " ".join(str(error).split())[-400:]))
        else:
            found.append(Outcome(line, True))
    return found


def _until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.2)


def _openstacksdk(cloud: Cloud, home: Path) -> list[Outcome]:
    bin_ = other_clients.environment("openstacksdk")
    (home / "CONTRIBUTING.rst").write_text("what a test of images uploads\n")
    names = {"OS_CLIENT_CONFIG_FILE": str(cloud.make_people()), "OS_CLOUD": "devstack-admin"}
    bounds = {"OS_TEST_TIMEOUT": "60", "OPENSTACKSDK_FUNC_TEST_TIMEOUT": "30"}
    given = {"OPENSTACKSDK_IMAGE": "tiny", "OPENSTACKSDK_FLAVOR": "tiny"}
    script = SCRIPTS / "with_sdk_functional.py"
    return _steps(_run(bin_ / "python", script, *OF_SDK, at=home, **names, **bounds, **given))


def _ansible(cloud: Cloud, home: Path) -> list[Outcome]:
    bin_ = other_clients.environment("ansible")
    config = {"OS_CLIENT_CONFIG_FILE": str(cloud.home / "clouds.yaml"), "PATH": f"{bin_}:{os.environ['PATH']}"}
    callback = {"ANSIBLE_STDOUT_CALLBACK": "json", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    found = []
    for play in ("ansible.yml", "ansible_more.yml"):
        words = ("-e", json.dumps({"key": _key()}))
        done = _run(bin_ / "ansible-playbook", f"tests/clients/{play}", *words, **config, **callback)
        told = json.loads(done.stdout[done.stdout.index("{") :])
        for task in told["plays"][0]["tasks"]:
            for result in task["hosts"].values():
                is_bad = bool(result.get("failed"))
                said = " ".join(str(result.get("msg", "")).split())[-400:] if is_bad else ""
                found.append(Outcome(task["task"]["name"], not is_bad, said))
    return found


def _libcloud(cloud: Cloud, home: Path) -> list[Outcome]:
    python = other_clients.environment("libcloud") / "python"
    return _steps(_run(python, SCRIPTS / "with_libcloud.py", cloud.url, cloud.password, _key()))


def _gophercloud(cloud: Cloud, home: Path) -> list[Outcome]:
    program = other_clients.go_program(SCRIPTS / "with_gophercloud.go")
    ids = (cloud.openstack("image", "show", "tiny")["id"], cloud.openstack("network", "show", "outside")["id"])
    return _steps(_run(program, cloud.url, cloud.password, *ids))


def _fog(cloud: Cloud, home: Path) -> list[Outcome]:
    return _steps(_run("ruby", SCRIPTS / "with_fog.rb", cloud.url, cloud.password))


def _pkgcloud(cloud: Cloud, home: Path) -> list[Outcome]:
    directory = other_clients.of_npm("pkgcloud")
    return _steps(_run("node", SCRIPTS / "with_pkgcloud.js", directory, cloud.url, cloud.password))


def _packer(cloud: Cloud, home: Path) -> list[Outcome]:
    network = cloud.openstack("network", "create", "packer")["id"]
    cloud.openstack("subnet", "create", "packer4", "--network", "packer", "--subnet-range", "10.41.0.0/24")
    words = [f"-var={name}={value}" for name, value in _packer_given(cloud, network).items()]
    done = _run("packer", "build", "-color=false", *words, SCRIPTS / "packer.json")
    made = [one["Status"] for one in cloud.openstack("image", "list", "--name", "packed")]
    is_right = done.returncode == 0 and made == ["active"]
    said = "" if is_right else " ".join(done.stdout.split())[-400:]
    cloud.openstack("network", "delete", "packer")
    return [Outcome("build of an image from a server, with a key pair and a network of its own", is_right, said)]


def _packer_given(cloud: Cloud, network: str) -> dict[str, str]:
    return {"url": cloud.url, "password": cloud.password, "network": network}


def _prometheus(cloud: Cloud, home: Path) -> list[Outcome]:
    """It runs, and is asked what it has found."""
    cloud.openstack("server", "create", "seen", "--image", "tiny", "--flavor", "tiny", "--nic", "auto", "--wait")
    config, (port,) = home / "prometheus.yml", free_ports(1)
    text = (SCRIPTS / "prometheus.yml").read_text().replace("URL", cloud.url).replace("PASSWORD", cloud.password)
    config.write_text(text)
    checked = _run("promtool", "check", "config", config)
    found = [Outcome("promtool check config", checked.returncode == 0, checked.stderr[-400:])]
    command = ("prometheus", f"--config.file={config}", f"--storage.tsdb.path={home}/data")
    with (home / "said").open("w") as said:
        running = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=said, stderr=said)
        try:
            for job, label in (("servers", "server"), ("hypervisors", "hypervisor")):
                names = _discovered(port, job, label)
                is_right = "seen" in names if job == "servers" else names == {"s1", "s2"}
                found.append(Outcome(f"discovery of {job}", is_right, f"{sorted(names)}"))
        finally:
            running.terminate()
            running.wait(SOON_S)
    cloud.openstack("server", "delete", "seen", "--wait")
    cloud.openstack("network", "auto", "allocated", "topology", "delete")
    return found


def _discovered(port: int, job: str, label: str) -> set[str]:
    names: set[str] = set()
    end_s = time.monotonic() + SOON_S
    while not names and time.monotonic() < end_s:
        time.sleep(0.5)
        done = _run("curl", "-s", f"http://127.0.0.1:{port}/api/v1/targets")
        active = json.loads(done.stdout)["data"]["activeTargets"] if done.stdout else []
        names = {one["labels"].get(label, "") for one in active if one["scrapePool"] == job}
    return names


def _rally(cloud: Cloud, home: Path) -> list[Outcome]:
    bin_ = other_clients.environment("rally")
    admin = {"username": "admin", "password": cloud.password, "project_name": "admin", "user_domain_name": "Default"}
    admin["project_domain_name"] = "Default"
    spec = {"existing@openstack": {"auth_url": f"{cloud.url}/identity/v3", "region_name": "RegionOne", "admin": admin}}
    (home / "spec.json").write_text(json.dumps(spec))
    (home / "rally.conf").write_text(f"[database]\nconnection = sqlite:///{home}/rally.sqlite\n")
    rally: tuple[str | Path, ...] = (bin_ / "rally", "--config-file", home / "rally.conf")
    for words in (("db", "create"), ("env", "create", "--name", "here", "--spec", str(home / "spec.json"))):
        done = _run(*rally, *words, HOME=str(home))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    _run(*rally, "task", "start", SCRIPTS / "rally.json", HOME=str(home))
    told = json.loads(_run(*rally, "task", "results", HOME=str(home)).stdout)
    found = []
    for one in told:
        errors = [run["error"] for run in one["result"] if run["error"]]
        said = " ".join(str(errors[0][:2]).split())[:400] if errors else "it was not run" if not one["result"] else ""
        found.append(Outcome(one["key"]["name"], bool(one["result"]) and not errors, said))
    return found


PLAYS: dict[str, Play] = {
    "openstack": _openstack,
    "libcloud": _libcloud,
    "gophercloud": _gophercloud,
    "fog": _fog,
    "pkgcloud": _pkgcloud,
    "packer": _packer,
    "prometheus": _prometheus,
    "rally": _rally,
    "ansible": _ansible,
    "openstacksdk": _openstacksdk,
}


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", PLAYS)
def test_client(cloud: Cloud, tmp_path: Path, name: str) -> None:
    """What does not work is known, and has its sentence; what is known not to work does not."""
    try:
        version = other_clients.version(name)
        found = PLAYS[name](cloud, tmp_path)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"it cannot be had here: {error}")
    if "DROVEWAY_CLIENTS_WRITE" in os.environ:
        clients_page.keep(name, version, found)
    unknown = [one for one in found if one.is_right is False and clients_page.why_not(name, one.step) is None]
    assert not unknown, "\n".join(f"{one.step}: {one.said}" for one in unknown)


def test_the_page_tells_of_every_client_what_the_last_run_has_found() -> None:
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    assert set(results) <= set(PLAYS) == set(TOLD)
    assert PAGE.read_text() == clients_page.filled(PAGE.read_text(), results), "python -m lab.clients_page"
    for name, told in results.items():
        wrong = [step for step, _ in told["wrong"] if clients_page.why_not(name, step) is None]
        assert not wrong, f"{name}: no sentence for {wrong}"


def test_the_page_says_why() -> None:
    told = {"version": "1", "on": "2026-12-01", "right": 3, "skipped": [["s", "no"]], "wrong": [["rename", "x"]]}
    text = clients_page.table({"fog": told})
    assert "3 of 4" in text and "1" in text


def test_the_commands_are_those_of_the_client() -> None:
    """Nothing else is in that file, and each line waits for something that is made before."""
    lines = [line for line in (SCRIPTS / "openstack.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("::" in line for line in lines if line.startswith("@")) and len(lines) > 100
    assert yaml.safe_load((SCRIPTS / "prometheus.yml").read_text())["scrape_configs"]
