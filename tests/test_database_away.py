"""PostgreSQL restarted, and killed, while guests are created: what was accepted happens once, the rest is refused with
its reason. Requests are those of clients that ask again after a 503, as openstacksdk does."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from lab import processes, servers
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud

pytestmark = pytest.mark.servers

CLIENTS, PAUSE_S = 4, 0.05
LOADED_S, AWAY_S, ENDS_S = 1.5, 2.0, 60.0


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    for name in ("nats", "postgresql"):
        obstacle = servers.obstacle(name)
        if obstacle is not None:
            pytest.skip(obstacle)
    with own_cloud() as made:
        made.choose("nats", "postgresql")
        made.up(simulated=True, foreground=False, quiet=True)
        yield made
        print(made.log.read_text()[-10_000:])


class Load:
    """Clients that create servers until they are told to stop, and remember what they were told."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._is_over = threading.Event()
        self.accepted: list[str] = []
        self.answers: Counter[int] = Counter()
        self.reasons: set[str] = set()
        self._clients = [threading.Thread(target=self._create, args=(n,), daemon=True) for n in range(CLIENTS)]

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for client in self._clients:
            client.join(ENDS_S)
            assert not client.is_alive(), "a client waits for ever"

    def _create(self, client: int) -> None:
        compute = Compute(self._cloud.port, self._cloud.clouds_yaml)
        image = compute.image_id()
        number = 0
        while not self._is_over.wait(PAUSE_S):
            number += 1
            server = {"name": f"c{client}-{number}", "imageRef": image, "flavorRef": "tiny", "networks": "none"}
            status, body = compute.call("POST", "/compute/v2.1/servers", {"server": server})
            self.answers[status] += 1
            if status == 202:
                self.accepted.append(body["server"]["id"])
            else:
                self.reasons.add(str(body))
        compute.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["restarted", "killed"])
def test_what_was_accepted_runs_once_and_the_rest_was_told_why(cloud: Cloud, number: signal.Signals) -> None:
    compute = Compute(cloud.port, cloud.clouds_yaml)
    with Load(cloud) as load:
        time.sleep(LOADED_S)
        before = len(load.accepted)
        database = processes.recorded(cloud.backing.directory / "postgresql" / "pid")
        assert database is not None
        database.send(number)
        assert processes.wait_for(lambda: not database.is_alive(), ENDS_S)
        time.sleep(AWAY_S)
        cloud.backing.start()
        time.sleep(LOADED_S)
        processes.wait_for(lambda: len(load.accepted) > before + CLIENTS, ENDS_S)
    print(number.name, dict(load.answers), *load.reasons, sep="\n")
    assert before > 0
    assert len(load.accepted) > before + CLIENTS, load.answers
    assert set(load.answers) <= {202, 503}, (load.answers, load.reasons)
    assert all("database" in reason for reason in load.reasons), load.reasons
    assert not any("127.0.0.1" in reason or "socket" in reason for reason in load.reasons), load.reasons
    assert processes.wait_for(lambda: compute.call("GET", "/compute/v2.1/servers?limit=1")[0] == 200, ENDS_S)
    for server in load.accepted:
        compute.wait(server, "ACTIVE")
    assert len(set(load.accepted)) == len(load.accepted)
    names = Counter(one["name"] for one in compute.must("GET", "/compute/v2.1/servers?limit=1000")["servers"])
    assert max(names.values()) == 1
    assert processes.wait_for(lambda: not findings(compute), ENDS_S), findings(compute)
    for one in compute.must("GET", "/compute/v2.1/servers?limit=1000")["servers"]:
        compute.must("DELETE", f"/compute/v2.1/servers/{one['id']}")
    assert processes.wait_for(lambda: not compute.must("GET", "/compute/v2.1/servers")["servers"], ENDS_S)
    assert processes.wait_for(lambda: not findings(compute), ENDS_S), findings(compute)
    compute.close()


def findings(compute: Compute) -> list[object]:
    return list(compute.must("GET", "/droveway/v1/audit")["findings"])
