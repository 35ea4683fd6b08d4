"""One simulated world: hosts and their agents, controls, the database and the network between them; and the processes
that die in it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine

import msgspec
from sqlalchemy import insert

from droveway.agents.compute import ComputeAgent
from droveway.agents.network import NetworkAgent
from droveway.agents.volume import VolumeAgent
from droveway.api.wiring import hash_token
from droveway.control.control import Control
from droveway.control.engine.runner import Runner
from droveway.control.engine.saga import Saga
from droveway.control.scheduling.placer import Placer
from droveway.domain.model import Flavor, Nic, SagaKind, TaskState
from droveway.domain.placement import GroupPolicy
from droveway.domain.volume.disks import VolumeDisk
from droveway.drivers.hypervisor.simulated.fleet import Durations, Fleet, GuestCopy, GuestEnd, SimulatedHost
from droveway.drivers.images.simulated import SimulatedImages
from droveway.drivers.network.simulated import SimulatedNetwork
from droveway.drivers.storage.simulated import SimulatedStorage
from droveway.simulation import guest_networks, guest_volumes, root_pools
from droveway.simulation.apis import DATA, IMAGE_ID, SHA512, Apis
from droveway.simulation.database import Database
from droveway.simulation.hearts import HeartProcess
from droveway.simulation.loop import EPOCH_US, SimChance, SimClock, SimLoop, SimNames
from droveway.simulation.machines import LIVENESS, PLACEMENT, ControlProcess, Host
from droveway.simulation.network import Network
from droveway.simulation.process import Process
from droveway.simulation.together import TOGETHER
from droveway.simulation.truth import CONTROL_DEAD, DECLARED, FaultPeriods
from droveway.simulation.verdict_laws import RecordedStates
from droveway.store.compute import flavors
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, tokens
from droveway.store.schema import images, server_groups

DURATIONS = Durations(
    prepare=(0.1, 2.0),
    start=(0.1, 1.0),
    power_off=(0.1, 4.0),
    remove=(0.02, 0.5),
    hold=(0.05, 1.0),
    arrive=(0.05, 0.5),
    copy=(0.3, 6.0),
    switch=(0.01, 0.3),
    tail=(0.01, 0.5),
    probe_kept_s=120.0,
)
FLAVORS = (Flavor("tiny", "tiny", 1, 512, 1), Flavor("small", "small", 2, 2048, 2), Flavor("big", "big", 4, 6144, 8))
HUGE = Flavor("huge", "huge", 4, 32768, 8)  # fits nowhere
STORES_APART = 0.2  # of the worlds
TOKEN = "the token of everybody who asks the API"
TOKEN_LASTS_US = 10 * 365 * 24 * 3600 * 1_000_000  # clocks step by a day
HEARD_BY_ALL_S = 15.0
GROUPS = {policy: f"5eed0000-0000-4000-8000-00000000010{number}" for number, policy in enumerate(GroupPolicy)}


class Parts(msgspec.Struct, frozen=True):
    """What the world is built from. A mutant is another part: a subclass, or a story with one step changed."""

    runner: type[Runner] = Runner
    placer: type[Placer] = Placer
    agent: type[ComputeAgent] = ComputeAgent
    control: type[Control] = Control
    heart: type[HeartProcess] = HeartProcess
    images: type[SimulatedImages] = SimulatedImages
    network_agent: type[NetworkAgent] = NetworkAgent
    network: type[SimulatedNetwork] = SimulatedNetwork
    volume_agent: type[VolumeAgent] = VolumeAgent
    storage: type[SimulatedStorage] = SimulatedStorage
    stories: dict[SagaKind, Saga] = msgspec.field(default_factory=lambda: TOGETHER)


class Trace:
    """What happened, in order: hashed always, kept only when it will be printed."""

    def __init__(self, loop: SimLoop, keep: bool) -> None:
        self._loop = loop
        self._hash = hashlib.sha256()
        self.kept: list[str] | None = [] if keep else None

    def note(self, line: str) -> None:
        text = f"{self._loop.time():.6f} {line}"
        self._hash.update(text.encode())
        if self.kept is not None:
            self.kept.append(text)

    def digest(self) -> str:
        return self._hash.hexdigest()


def stores_are_apart(seed: int) -> bool:
    """Whether its first host does not see the store of the others."""
    return random.Random(f"are stores apart in {seed}").random() < STORES_APART


class World:
    """Everything of one seed."""

    def __init__(self, loop: SimLoop, seed: int, parts: Parts, *, keep_trace: bool) -> None:
        self.loop, self.seed, self.parts = loop, seed, parts
        self.rng = random.Random(seed)
        self.names = SimNames(random.Random(seed + 1_000_000_007))
        self.trace = Trace(loop, keep_trace)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.crashed_guests: set[str] = set()
        self.may_be_busy = True  # requests may be refused for load, and hosts may not answer
        self.dying: list[Process] = []
        self.database = Database(loop, self.rng, self.names, PLACEMENT, self.trace.note)
        self.truth = FaultPeriods(loop)
        self.words = RecordedStates(self)
        self.database.on_service = self.words.take
        self.network = Network(loop, self.rng, self.trace.note, self.truth, LIVENESS.report_interval_s)
        self.clock = SimClock(loop, self.rng)
        self.apis = Apis(self)
        self.fleet = OutsideFleet(self.clock, SimChance(self.rng), DURATIONS)
        self.fleet.on_given_up = self._is_given_up
        self.database.on_switch = self._is_switched
        self.database.on_host = self._is_declared
        self.cpu_levels = self.rng.choice([(1,), (1,), (1,), (1, 1, 1, 2)])
        self.networks = guest_networks.GuestNetworks(self) if guest_networks.are_played(seed) else None
        self.volumes = guest_volumes.GuestVolumes(self) if guest_volumes.are_played(seed) else None
        self.root_pools = root_pools.RootPools(self) if root_pools.are_played(seed) else None
        self._stores_apart = stores_are_apart(seed)
        self.hosts = {name: Host(self, name) for name in (f"h{i}" for i in range(self.rng.randint(3, 5)))}
        self.control_names = [f"c{i}" for i in range(self.rng.randint(2, 3))]
        self.controls: dict[str, ControlProcess] = {}
        self.database.commit(_begin, self.clock.now_us())

    def start(self) -> None:
        for name in self.control_names:
            self.start_control(name)
        for host in self.hosts.values():
            host.boot()

    def start_control(self, name: str) -> None:
        if name not in self.controls:
            self.truth.end(CONTROL_DEAD, name)
            self.controls[name] = ControlProcess(self, name)

    def restart_control(self, ended: ControlProcess) -> None:
        if self.controls.get(ended.name) is ended:
            self.kill_control(ended.name)
            self.start_control(ended.name)

    def kill_control(self, name: str) -> None:
        process = self.controls.pop(name, None)
        if process is not None:
            self.truth.begin(CONTROL_DEAD, name)
            process.kill()

    def _is_switched(self, instance_id: str, host: str) -> None:
        """What a saga has recorded must have happened."""
        home = self.fleet.homes.get(instance_id)
        if home != host:
            self.broken(f"the switch of {instance_id} to {host} was recorded, and it has last lived on {home}")

    def _is_given_up(self, copy: GuestCopy) -> None:
        """Two halves of a guest that stand still are joined again, unless nobody wants it or a host is said to be gone
        for good."""
        now_s, ends = self.loop.time(), (copy.source.name, copy.destination.name)
        if self.truth.was(now_s, now_s, *((DECLARED, name) for name in ends)):
            return
        wanted = {row.id for row in self.database.living() if row.task_state != TaskState.DELETING}
        if copy.instance_id in wanted:
            self.broken(f"guest {copy.instance_id} was given up while both halves of it were there")

    def _is_declared(self, host: str, body: str) -> None:
        """By an operator; other controls hear a moment later that a host is let in again."""
        if "declared it gone" in body:
            self.truth.begin(DECLARED, host)
        elif "may be used again" in body:
            self.loop.call_later(HEARD_BY_ALL_S, self.truth.end, DECLARED, host, context=self.loop.outside)

    def store_of(self, host: str) -> str:
        """Of some worlds the first host does not see the store of the others."""
        return host if self._stores_apart and host == "h0" else "shared"

    def broken(self, reason: str) -> None:
        """A law does not hold."""
        if len(self.violations) < 20:
            self.violations.append(reason)
            self.trace.note(f"BROKEN {reason}")

    async def end(self) -> None:
        """No task is left over: one that never ended would complain of it whenever its memory is collected."""
        for name in list(self.controls):
            self.kill_control(name)
        for host in self.hosts.values():
            for service in host.services:
                host.kill_agent(service)
            host.kill_heart()
        left = sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=hash)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class OutsideFleet(Fleet):
    """What the hypervisors do belongs to no agent: it goes on while one is stopped."""

    def __init__(self, clock: SimClock, chance: SimChance, durations: Durations) -> None:
        super().__init__(clock, chance, durations)
        self.homes: dict[str, str] = {}  # where each guest lives, or has last lived
        self.on_given_up: Callable[[GuestCopy], None] = lambda copy: None

    def run(
        self,
        host: SimulatedHost,
        instance_id: str,
        ram_mb: int,
        nics: tuple[Nic, ...] = (),
        volumes: tuple[VolumeDisk, ...] = (),
    ) -> None:
        super().run(host, instance_id, ram_mb, nics, volumes)
        self.homes[instance_id] = host.name

    def _switch(self, copy: GuestCopy) -> None:
        super()._switch(copy)
        self.homes[copy.instance_id] = copy.destination.name

    def _end_half(self, host: SimulatedHost, instance_id: str, why: GuestEnd) -> None:
        copy = self.copies.get(instance_id)
        if copy is not None and copy.is_split and why is GuestEnd.STOP and not copy.connected.is_set():
            self.on_given_up(copy)
        super()._end_half(host, instance_id, why)

    def own(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        return loop.outside.copy().run(super().own, work)


def _begin(tx: Tx) -> None:
    """What there is at the start: an image, flavors, and an admin with a token."""
    for flavor in (*FLAVORS, HUGE):
        flavors.create(tx, flavor)
    accounts.seed(tx, "")
    user = accounts.find_user(tx, name="admin", domain_id=accounts.DEFAULT_DOMAIN_ID)
    assert user is not None, "it was made just now"
    tokens.issue_token(
        tx,
        token_hash=hash_token(TOKEN),
        audit_id="simulated",
        user_id=user["id"],
        project_id=user["default_project_id"],
        methods=["password"],
        expires_at_us=EPOCH_US + TOKEN_LASTS_US,
    )
    tx.execute(
        insert(server_groups),
        [
            {
                "id": group_id,
                "project_id": user["default_project_id"],
                "user_id": user["id"],
                "name": policy.value,
                "policy": policy.value,
                "created_at_us": tx.now_us,
            }
            for policy, group_id in GROUPS.items()
        ],
    )
    tx.execute(
        insert(images),
        {
            "id": IMAGE_ID,
            "project_id": "p",
            "name": "tiny",
            "status": "active",
            "visibility": "public",
            "protected": False,
            "container_format": "bare",
            "disk_format": "qcow2",
            "min_ram_mb": 0,
            "min_disk_gb": 0,
            "size_bytes": len(DATA),
            "virtual_size_bytes": 1 << 30,
            "checksum": "0" * 32,
            "sha512": SHA512,
            "properties": {},
            "tags": [],
            "created_at_us": tx.now_us,
            "updated_at_us": tx.now_us,
        },
    )
