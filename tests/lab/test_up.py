"""`./dev up` and `./dev down` as their user meets them: twice, interrupted, with a port that is taken, without root."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.cloud import CLONE, Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.hosts import obstacle
from lab.processes import wait_for
from lab.quickstart import KEYPAIRS, NETWORK, key_path, public_line
from tests.lab.witness import Witness, home_is_clean, paused

REASON = obstacle()
needs_hosts = pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")
pytestmark = pytest.mark.lab
UP_S = 120


@pytest.fixture
def own() -> Iterator[Cloud]:
    """A cloud of its own that nobody has started yet."""
    with own_cloud() as made:
        yield made
        made.down()
        home_is_clean(made)


def dev(cloud: Cloud, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CLONE / "dev"), *words],
        env={**os.environ, "DROVEWAY_DIR": str(cloud.home)},
        capture_output=True,
        text=True,
        timeout=UP_S,
        check=False,
    )


def is_up(cloud: Cloud, *words: str) -> str:
    done = dev(cloud, "up", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_hosts
@pytest.mark.matrix
@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0])
def test_up_is_interrupted_and_run_again(own: Cloud, after_s: float) -> None:
    """Ctrl-C reaches the whole group of the shell, as in a terminal."""
    with tempfile.TemporaryFile("w+") as said:
        started = subprocess.Popen(
            [str(CLONE / "dev"), "up"],
            env={**os.environ, "DROVEWAY_DIR": str(own.home)},
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        paused(after_s)
        os.killpg(started.pid, signal.SIGINT)
        code = started.wait(UP_S)
        said.seek(0)
        words = said.read()
    assert "Traceback" not in words
    if code == 0:  # it had done it all before the signal came
        assert "up in" in words
    else:
        assert words == "" or words.endswith("interrupted; `./dev up` goes on from here, `./dev down` ends what runs\n")

    is_up(own)
    compute = Compute(own.port, own.clouds_yaml)
    server = compute.create("after", compute.image_id())
    compute.wait(server, "ACTIVE")
    compute.delete(server)
    compute.close()
    assert dev(own, "down").returncode == 0
    home_is_clean(own)


@needs_hosts
def test_an_interrupted_up_is_ended_by_down(own: Cloud) -> None:
    started = subprocess.Popen(
        [str(CLONE / "dev"), "up"],
        env={**os.environ, "DROVEWAY_DIR": str(own.home)},
        process_group=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    paused(0.7)
    os.killpg(started.pid, signal.SIGINT)
    started.wait(UP_S)
    assert dev(own, "down").returncode == 0
    paused(0.5)  # what was on its way when it was interrupted would be there by now
    home_is_clean(own)


def test_up_with_simulated_hosts_down_and_up_again(own: Cloud) -> None:
    """Needs neither root nor libvirt. The port it had is taken meanwhile: it finds another."""
    said = is_up(own, "--simulated")
    assert "sim1, sim2: simulated" in said
    compute = Compute(own.port, own.clouds_yaml)
    running, stopped = (compute.create(name, compute.image_id()) for name in ("runs", "rests"))
    for server in (running, stopped):
        compute.wait(server, "ACTIVE")
    source = compute.host_of(running)
    compute.migrate(running)
    assert compute.wait_migrated(running)["status"] == "completed"
    assert compute.wait(running, "ACTIVE")["OS-EXT-SRV-ATTR:host"] != source
    compute.must("POST", f"/compute/v2.1/servers/{stopped}/action", {"os-stop": None})
    compute.wait(stopped, "SHUTOFF")
    _is_completed(own, compute)
    told = dev(own, "ssh", "runs")
    assert (told.returncode, told.stderr.count("\n")) == (1, 1) and "simulated" in told.stderr
    compute.close()
    port = own.port
    assert dev(own, "down").returncode == 0

    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another cloud of this machine has it already, which is as good
            stranger.bind(("127.0.0.1", port))
            stranger.listen()
        is_up(own, "--simulated")
    assert own.port != port
    compute = Compute(own.port, own.clouds_yaml)
    host = compute.wait(running, "ACTIVE")["OS-EXT-SRV-ATTR:host"]
    assert wait_for(lambda: _starts(compute, running) == 1, 30)  # its host went down under it
    assert compute.wait(running, "ACTIVE")["OS-EXT-SRV-ATTR:host"] == host
    assert (_starts(compute, stopped), compute.server(stopped)["status"]) == (0, "SHUTOFF")
    for server in (running, stopped):
        compute.delete(server)
    compute.close()


def _is_completed(cloud: Cloud, compute: Compute) -> None:
    """What `up` makes for the first server is made once, and what is missing of it is made again."""
    there = _quickstart(compute)
    assert "already up" in is_up(cloud, "--simulated")
    assert _quickstart(compute) == there
    (router,), (inside,) = there["routers"], [one for one in there["networks"] if one["name"] == "private"]
    subnet = {"subnet_id": inside["subnets"][0]}
    compute.must("PUT", f"{NETWORK}/routers/{router['id']}/remove_router_interface", subnet)
    compute.must("PUT", f"{NETWORK}/routers/{router['id']}", {"router": {"external_gateway_info": None}})
    compute.must("DELETE", f"{NETWORK}/subnets/{subnet['subnet_id']}")
    compute.must("DELETE", f"{NETWORK}/security-group-rules/{there['rules'][0]['id']}")
    key_path(cloud.home).unlink()
    is_up(cloud, "--simulated")
    completed = _quickstart(compute)
    for what, before in there.items():
        assert len(completed[what]) == len(before), what
    (router,) = completed["routers"]
    assert router["external_gateway_info"]["network_id"] != inside["id"]
    assert [one["public_key"] for one in completed["keypairs"]] == [public_line(cloud.home)]
    assert completed["keypairs"] != there["keypairs"]


def _quickstart(compute: Compute) -> dict[str, list[dict[str, Any]]]:
    def listed(what: str, filters: str = "") -> list[dict[str, Any]]:
        return list(compute.must("GET", f"{NETWORK}/{what}{filters}")[what.replace("-", "_")])

    return {
        "networks": listed("networks"),
        "subnets": listed("subnets"),
        "routers": listed("routers"),
        "legs": listed("ports", "?device_owner=network:router_interface"),
        "rules": listed("security-group-rules", "?direction=ingress&ethertype=IPv4&remote_group_id="),
        "keypairs": [one["keypair"] for one in compute.must("GET", KEYPAIRS)["keypairs"]],
    }


def _starts(compute: Compute, server: str) -> int:
    sagas = compute.must("GET", "/droveway/v1/sagas?all=1")["sagas"]
    return sum(one["kind"] == "start" and one["subject_id"] == server and one["status"] == "done" for one in sagas)


def test_it_says_why_the_program_did_not_start(own: Cloud) -> None:
    """A database that is no database: one line from `up`, with the program's own sentence in it."""
    (own.home / "droveway.sqlite").write_text("this is no database, whatever its name says\n" * 100)
    done = dev(own, "up", "--simulated")
    assert done.returncode != 0
    assert done.stderr.startswith("droveway: the API did not answer")
    assert re.search(r"the database .* cannot be opened", done.stderr)
    assert done.stderr.count("\n") == 1


@needs_hosts
def test_down_and_up_keep_everything(witness: Witness, ada: str) -> None:
    """Users, images and servers are still there; what ran runs again, what was stopped stays so."""
    cloud, compute = witness.cloud, witness.compute
    stopped = witness.booted("rests")
    witness.wait_for_tick(stopped, 2)  # earlier it would not hear the power button
    compute.must("POST", f"/compute/v2.1/servers/{stopped}/action", {"os-stop": None})
    compute.wait(stopped, "SHUTOFF")

    def kept() -> tuple[list[str], list[str], dict[str, str]]:
        users = [one["id"] for one in compute.must("GET", "/identity/v3/users")["users"]]
        images = [one["id"] for one in compute.must("GET", "/image/v2/images")["images"]]
        servers = compute.must("GET", "/compute/v2.1/servers/detail")["servers"]
        return users, images, {one["id"]: one["OS-EXT-SRV-ATTR:host"] for one in servers}

    boots = witness.boots(ada)
    before, port, password = kept(), cloud.port, _password(cloud.clouds_yaml)
    compute.close()
    cloud.down()
    home_is_clean(cloud)
    cloud.up(simulated=False, foreground=False, quiet=True)
    assert (kept(), cloud.port, _password(cloud.clouds_yaml)) == (before, port, password)
    witness.comes_up(ada, boots + 1)
    compute.wait(ada, "ACTIVE")
    assert compute.server(stopped)["status"] == "SHUTOFF"


def _password(clouds_yaml: Path) -> str:
    found = re.search("password: (.+)", clouds_yaml.read_text())
    assert found is not None
    return found[1]
