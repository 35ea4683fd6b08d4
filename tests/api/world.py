"""One API in this process: a store in memory, a directory for images, two hosts that have reported, no network."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
from argon2 import PasswordHasher
from sqlalchemy import select, update

from droveway.api.app import Api, ApiSettings, App, build_app
from droveway.api.discovery import served
from droveway.api.http.pool import ThreadPool
from droveway.api.identity import passwords
from droveway.api.image import uploads
from droveway.domain.diagnostics import CpuUse, DiskUse, GuestDiagnostics, NicUse
from droveway.domain.faults import Unreachable
from droveway.domain.liveness import State
from droveway.domain.metrics import LivenessMetrics
from droveway.domain.model import Resources
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.credentials.own_table import OwnTable
from droveway.ports.asking import QuestionSignature, proxy
from droveway.ports.control import ControlQueries
from droveway.store.compute import flavors, instances
from droveway.store.engine.transaction import DiskStore, MemoryStore, Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.identity import accounts, catalog
from droveway.store.schema import sagas
from droveway.store.volume import types
from tests.store import databases

BASE = "http://cloud.test"
PASSWORD = "correct horse"
NOVA = "/compute/v2.1"
IMG = "/image/v2"
V3 = "/identity/v3"


class HandClock(SystemClock):
    """The real clock, that a test can put forward."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


async def nobody(about: QuestionSignature, arguments: tuple[Any, ...]) -> Any:
    raise Unreachable("No control runs beside this API.")


async def no_metrics() -> LivenessMetrics:
    return LivenessMetrics()


class World:
    """The API and what a test may reach behind it."""

    def __init__(
        self, directory: Path, *, store: MemoryStore | DiskStore | None = None, base_url: str = BASE, **settings: Any
    ) -> None:
        self.clock = HandClock()
        self.images = directory / "images"
        self.images.mkdir(parents=True, exist_ok=True)
        self.store = store or databases.store(self.clock)
        self.hashing = ThreadPool("hashing", 1, 64)
        self.files = ThreadPool("files", 2, 64)
        self.prechecks: Callable[[str], Awaitable[tuple[bool, str]]] = self._checks_pass
        self.consoles: dict[str, str] = {}
        self.control = proxy(ControlQueries, nobody)  # a test gives it the answers it needs
        self.control.read_console, self.control.liveness_metrics = self._console, no_metrics
        self.control.read_diagnostics = self._diagnostics
        self.api = Api(
            store=self.store,
            clock=self.clock,
            names=SystemNames(),
            settings=ApiSettings(base_url=base_url, images_directory=self.images, **settings),
            credentials=OwnTable(self.store, partial(passwords.matches, self.hashing)),
            hashing=self.hashing,
            files=self.files,
            sagas_settled=self._settled,
            control=self.control,
        )
        self.app: App = build_app(self.api)
        takes = {"Accept": "application/json"}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=BASE, headers=takes)

    async def _checks_pass(self, saga_id: str) -> tuple[bool, str]:
        return True, ""

    async def _settled(self, saga_id: str, timeout_s: float) -> tuple[bool, str]:
        return await self.prechecks(saga_id)

    async def _diagnostics(self, host: str, instance_id: str) -> GuestDiagnostics:
        uses = (CpuUse(0, 5),), (NicUse("fa:16:3e:00:00:01", "tap1", 7),), (DiskUse("vda", 9),)
        return GuestDiagnostics("running", "libvirt", "kvm", 0, *uses, 128, 64)

    async def _console(self, host: str, instance_id: str, lines: int | None) -> str:
        if instance_id not in self.consoles:
            raise Unreachable(f"{host} does not answer.")
        text = self.consoles[instance_id].splitlines(keepends=True)
        return "".join(text if lines is None else text[-lines:] if lines else [])

    async def seed(self) -> None:
        await self.store.run(seed)
        await self.store.run(
            catalog.seed, served(with_network=self.api.settings.network.is_on), self.api.settings.region
        )
        await uploads.recover(self.api)

    async def token(self, user: str = "admin", project: str | None = "admin", password: str = PASSWORD) -> str:
        reply = await self.http.post(f"{V3}/auth/tokens", json=login(user, project, password))
        assert reply.status_code == 201, reply.text
        return reply.headers["x-subject-token"]

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str,
        version: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        sent = {"X-Auth-Token": token, **(headers or {})}
        if version is not None:
            sent["OpenStack-API-Version"] = f"compute {version}"
        return await self.http.request(method, path, headers=sent, **more)

    async def close(self) -> None:
        await self.http.aclose()
        await self.store.close()
        self.hashing.close()
        self.files.close()


HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)  # cheap: tests log in often
RESOURCES = Resources(
    hypervisor_type="QEMU",
    hypervisor_version=7002022,
    hypervisor_hostname="h1.lab",
    vcpus=2,
    memory_mb=4096,
    memory_free_mb=4000,
    disk_gb=40,
    disk_free_gb=35,
    cpu_model="qemu64",
    cpu_vendor="AMD",
    cpu_features=("sse",),
    cpu_topology={"cores": 2},
    host_ip="10.0.0.1",
    reserved_memory_mb=512,
)


def seed(tx: Tx) -> None:
    """People and flavors; hosts h1 and h2."""
    people_and_flavors(tx)
    hosts_and_services(tx)


def people_and_flavors(tx: Tx) -> None:
    """admin in admin; alice (member) and rita (reader) in red; bob (member) in blue."""
    assert accounts.seed(tx, HASH)
    flavors.seed(tx)
    types.seed(tx)
    for project, people in (("red", {"alice": "member", "rita": "reader"}), ("blue", {"bob": "member"})):
        project_id = accounts.add_project(tx, project)
        for name, role in people.items():
            user_id = accounts.add_user(tx, name, HASH)
            accounts.grant(tx, user_id, project_id, role)


def hosts_and_services(tx: Tx) -> None:
    for host in ("h1", "h2"):
        hosts.join(tx, host, "nova")
        services.register(tx, host, "nova-compute", "nova")
        services.record_verdicts(
            tx, [services.Verdict(host, "nova-compute", State.ALIVE, "its beat arrives", tx.now_us)]
        )
        resources = msgspec.structs.replace(RESOURCES, hypervisor_hostname=f"{host}.lab")
        host_reports.report(tx, host, msgspec.to_builtins(resources), True, "")


def login(user: str, project: str | None, password: str = PASSWORD) -> dict[str, Any]:
    person = {"name": user, "domain": {"name": "Default"}, "password": password}
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": person}}}
    auth["scope"] = "unscoped" if project is None else {"project": {"name": project, "domain": {"id": "default"}}}
    return {"auth": auth}


@contextlib.asynccontextmanager
async def in_world(directory: Path, *, seeded: bool = True, **settings: Any) -> AsyncIterator[World]:
    """Run a story in a world of its own."""
    world = World(directory, **settings)
    try:
        if seeded:
            await world.seed()
        yield world
    finally:
        await world.close()


def reason(reply: httpx.Response) -> str:
    """The message of an error body, whatever service it came from."""
    if reply.headers["content-type"].startswith("text/plain"):
        return reply.text.split("\n\n", 1)[1].strip()
    body = reply.json()
    return str(body["message"] if "message" in body else next(iter(body.values()))["message"])


RAW = bytes(range(256)) * 4


async def make_image(world: World, token: str, name: str = "tiny", data: bytes = RAW, **more: Any) -> str:
    """An active image; its id."""
    body = {"name": name, "disk_format": "raw", "container_format": "bare", **more}
    reply = await world.ask("POST", f"{IMG}/images", token=token, json=body)
    assert reply.status_code == 201, reply.text
    image_id = str(reply.json()["id"])
    reply = await put_data(world, token, image_id, data)
    assert reply.status_code == 204, reply.text
    return image_id


async def put_data(world: World, token: str, image_id: str, data: Any) -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream"}
    return await world.ask("PUT", f"{IMG}/images/{image_id}/file", token=token, headers=headers, content=data)


async def make_server(world: World, token: str, image_id: str, name: str = "g1", **more: Any) -> str:
    server = {"name": name, "imageRef": image_id, "flavorRef": "tiny", "networks": "none", **more}
    reply = await world.ask("POST", f"{NOVA}/servers", token=token, version="2.96", json={"server": server})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["server"]["id"])


async def booted(world: World, instance_id: str, host: str = "h1") -> None:
    """What the boot saga would have done: the server runs on that host."""

    def write(tx: Tx) -> None:
        tx.execute(update(sagas).where(sagas.c.subject_id == instance_id).values(status="done", ended=True))
        instances.set_(
            tx, instance_id, host=host, vm_state="active", task_state=None, power_state=1, launched_at_us=tx.now_us
        )

    await world.store.run(write)


async def sagas_of(world: World, instance_id: str) -> list[dict[str, Any]]:
    """Everything that was ever wanted of the server."""

    def read(tx: Tx) -> list[dict[str, Any]]:
        rows = tx.execute(select(sagas).where(sagas.c.subject_id == instance_id).order_by(sagas.c.created_at_us))
        return [dict(row) for row in rows.mappings()]

    return await world.store.read(read)


def left(world: World) -> list[str]:
    """The files in the directory of images."""
    return sorted(path.name for path in world.images.iterdir())
