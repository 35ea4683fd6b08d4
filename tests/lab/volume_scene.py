"""A cloud on lab hosts whose volumes are reached over a network, a guest in it that runs, and what may be killed there
while something is done to a volume."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab import processes
from lab.client import ApiFailed
from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.processes import Process, wait_for
from tests.lab.witness import patiently

NOVA, CINDER = "/compute/v2.1", "/volume/v3"
SOON_S, LOOK_S = 90.0, 0.1
STEP_S, STEP_LOOK_S = 20.0, 0.02


class Guest:
    """A server that runs, and its volumes. `kind`: of the storage."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.kind = cloud, cloud.choice.storage
        self.compute = Compute(cloud.port, cloud.clouds_yaml)
        self.id = self.compute.create("roaming", self.compute.image_id())
        self.compute.wait(self.id, "ACTIVE")
        self.soon(lambda: len(self.ticks()) > 2, "it has booted, and takes what is plugged in")

    @property
    def backend(self) -> str:
        return f"cinder-volume@{self.kind}"

    def soon(self, condition: Callable[[], bool], what: str = "") -> None:
        """Control may be away meanwhile. Looked at seldom: each look costs the program some milliseconds."""

        def is_so() -> bool:
            try:
                return condition()
            except ApiFailed:  # a host is not connected again yet
                return False

        assert patiently(is_so, SOON_S, LOOK_S), what or f"see {self.cloud.log}"

    def ticks(self) -> list[int]:
        body = {"os-getConsoleOutput": {"length": None}}
        return ticks(self.compute.must("POST", f"{NOVA}/servers/{self.id}/action", body)["output"])

    def goes_on(self) -> None:
        said: list[int] = []

        def is_further() -> bool:
            said.append(len(self.ticks()))
            return said[-1] > said[0]

        self.soon(is_further, "it goes on")

    # -- volumes ------------------------------------------------------------------------------------------------------
    def make(self, kind: str = "volumes", **asked: Any) -> str:
        return str(self.compute.must("POST", f"{CINDER}/{kind}", {kind[:-1]: asked})[kind[:-1]]["id"])

    def volume(self) -> str:
        made = self.make(size=1)
        self.until(made, "available")
        return made

    def status(self, one: str, kind: str = "volumes") -> str:
        return str(self.compute.must("GET", f"{CINDER}/{kind}/{one}")[kind[:-1]]["status"])

    def until(self, one: str, wanted: str, kind: str = "volumes") -> None:
        self.soon(lambda: self.status(one, kind) == wanted, f"{kind[:-1]} {one} is to be {wanted}")

    @property
    def path(self) -> str:
        return f"{NOVA}/servers/{self.id}/os-volume_attachments"

    def attach(self, volume: str) -> None:
        self.compute.must("POST", self.path, {"volumeAttachment": {"volumeId": volume}})

    def detach(self, volume: str) -> None:
        self.compute.must("DELETE", f"{self.path}/{volume}")

    def extend(self, volume: str, size_gb: int) -> None:
        body = {"os-extend": {"new_size": size_gb}}
        assert self.compute.call("POST", f"{CINDER}/volumes/{volume}/action", body, "2.96, volume 3.59")[0] == 202

    def has(self) -> list[str]:
        return [row["volumeId"] for row in self.compute.must("GET", self.path)["volumeAttachments"]]

    def delete(self, one: str, kind: str = "volumes") -> None:
        path = f"{CINDER}/{kind}/{one}"
        assert self.compute.call("DELETE", path)[0] == 202
        self.soon(lambda: self.compute.call("GET", path)[0] == 404, f"{kind[:-1]} {one} is to go")

    def nothing_is_wrong(self) -> None:
        """By the audit, once what was killed is back and was looked at."""
        found: list[Any] = []

        def audited() -> bool:
            status, answer = self.compute.call("GET", "/droveway/v1/audit")
            found[:] = [answer] if status != 200 else answer["findings"]
            return not found

        assert patiently(audited, SOON_S, 1.0), found

    # -- what is at work ----------------------------------------------------------------------------------------------
    def saga_of(self, subject: str) -> dict[str, Any]:
        """The one about that subject which has not ended."""
        opened = self.compute.must("GET", "/droveway/v1/sagas")["sagas"]
        return next((dict(one) for one in opened if one["subject_id"] == subject), {})

    def stands_at(self, step: str, *subjects: str) -> None:
        """Whoever that step asks does not answer."""

        def is_there() -> bool:
            return any(self.saga_of(one).get("step") == step for one in subjects)

        assert wait_for(is_there, STEP_S, STEP_LOOK_S), [self.saga_of(one) for one in subjects]

    def processes_of(self, *words: str) -> list[Process]:
        wanted = ["droveway.main", str(self.cloud.config), *words]
        return [one for one in processes.everyone() if all(word in one.command() for word in wanted)]

    def service(self, name: str) -> list[Process]:
        """`volume`: of the backend; `compute`: of the host where the guest runs."""
        host = self.compute.host_of(self.id)
        found: list[Process] = []

        def runs() -> bool:
            if name == "volume":
                found[:] = self.processes_of("agent", self.backend)
            else:
                of_host = self.processes_of("agent", "--host", host)
                found[:] = [one for one in of_host if "--service" not in one.command()]
            return bool(found)

        assert wait_for(runs, SOON_S, LOOK_S), f"{name} runs"
        return found

    def usable(self) -> None:
        """All services are up, as everybody sees them."""

        def are_up() -> bool:
            of_volumes = self.compute.must("GET", f"{CINDER}/os-services")["services"]
            return all(one == "up" for one in [*self.compute.services().values(), *(s["state"] for s in of_volumes)])

        self.soon(are_up, "the services are to be up again")

    def exports(self) -> list[Process]:
        home = str(self.cloud.home)
        return [
            one
            for one in processes.everyone()
            if (words := one.command()) and words[0] == "nbdkit" and any(home in word for word in words)
        ]


@contextmanager
def stopped(found: list[Process]) -> Iterator[None]:
    """They neither answer nor end."""
    for one in found:
        one.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in found:
            one.send(signal.SIGCONT)


def kill(found: list[Process]) -> None:
    assert found, "it runs"
    for one in found:
        one.send(signal.SIGKILL)
    assert wait_for(lambda: not any(one.is_alive() for one in found), 30)


@contextmanager
def guest_in_cloud(kind: str) -> Iterator[Guest]:
    with own_cloud() as made:
        made.choose(None, None, kind)
        made.up(simulated=False, foreground=False, quiet=True)
        yield Guest(made)
