"""How fast an image reaches a host, beside curl, which only writes what it reads: ours checks its sha512, too.

A real API with its store, as the program serves it, in a process of its own; the image is random bytes. Each round is
one download by curl and one by a host's own code, in turn, from the same API into the same directory, each with a
ticket of its own; of each the best round counts, which is the one that others on this machine disturbed least. Then
twenty hosts want one image at once.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, cpu_seconds, median, progress, pss_mib
from droveway.domain.image_tickets import PATH, TICKET_HEADER, VERIFIER_HEADER, Direction, ImageTicket, challenge_of
from droveway.domain.model import ImageRef
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.images.http import HttpImages
from droveway.store.engine.transaction import DiskStore, open_store
from droveway.store.image import image_tickets, images
from lab import nodes
from lab.client import Client
from lab.processes import wait_for

NEEDS = ()
SIZE_BYTES, ROUNDS = 256 << 20, 7
HOSTS, HOSTS_SIZE_BYTES = 20, 32 << 20
STARTS_S = 30.0
CURL_FACTOR, CHECKED_FACTOR, LAG_MS = 1.2, 1.0, 50.0
VERIFIER = "the secret of a host's agent"


class Api:
    """The program with one simulated host, and a way into its store for tickets."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (self.port,) = nodes.free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        config = home / "droveway.toml"
        config.write_text(
            f'state_path = "{home}"\n[api]\nlisten = "127.0.0.1:{self.port}"\nimages_reserved_mb = 0\n'
            f'clouds_yaml = "{home}/clouds.yaml"\n'
        )
        command = [sys.executable, "-m", "droveway.main", "control", "--config", str(config)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=(home / "log").open("wb"))

    def upload(self, name: str, size_bytes: int) -> str:
        """Of random bytes; its id."""
        client = Client(self.port)
        if not wait_for(client.answers, STARTS_S):
            raise TimeoutError(f"the API does not answer: {(self.home / 'log').read_text()[-500:]}")
        client.log_in(self.home / "clouds.yaml")
        path = self.home / f"{name}.raw"
        with path.open("wb") as file:
            for _ in range(size_bytes >> 20):
                file.write(os.urandom(1 << 20))
        client.upload(name, path)
        path.unlink()
        found = client._checked("GET", f"/image/v2/images?name={name}", None, 200)[2]["images"]
        return str(found[0]["id"])

    async def open(self) -> DiskStore:
        return await open_store(f"sqlite:///{self.home}/droveway.sqlite", SystemClock(), SystemNames(), print)

    async def ref(self, store: DiskStore, image_id: str) -> ImageRef:
        return await store.read(images.ref, image_id, "")

    async def ticket(self, store: DiskStore, image: ImageRef, host: str) -> ImageTicket:
        asked = (image.id, host, Direction.FETCH, image.size_bytes, challenge_of(VERIFIER))
        token = await store.read(image_tickets.issue, *asked)
        if token is None:
            await store.run(image_tickets.replace, 0)
            token = await store.read(image_tickets.issue, *asked)
        assert token is not None, "there is a key now"
        return ImageTicket(token, (self.url,))


def measure() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory(prefix="dw-bench-") as made:
        api = Api(Path(made))
        try:
            large, small = api.upload("large", SIZE_BYTES), api.upload("small", HOSTS_SIZE_BYTES)
            yield from asyncio.run(_beside_curl(api, large))
            yield from asyncio.run(_many_hosts(api, small))
        finally:
            api.process.terminate()
            api.process.wait(STARTS_S)


async def _beside_curl(api: Api, image_id: str) -> list[Claim]:
    store = await api.open()
    ours, curls, checks, cpu = list[float](), list[float](), list[float](), list[float]()
    try:
        image = await api.ref(store, image_id)
        target = api.home / "target"
        for number in range(ROUNDS + 1):  # the first warms the page cache
            took_s, cpu_s = await _by_host(api, await api.ticket(store, image, "h1"), image, target)
            curl_s, check_s = await asyncio.to_thread(
                _by_curl, api, await api.ticket(store, image, "h1"), image, target
            )
            if number:
                ours.append(took_s)
                cpu.append(cpu_s)
                curls.append(curl_s)
                checks.append(check_s)
                progress(f"round {number}: host {took_s:.2f} s, curl {curl_s:.2f} s, sha512sum {check_s:.2f} s")
    finally:
        await store.close()
    mib = SIZE_BYTES >> 20
    rate, curl_rate = mib / min(ours), mib / min(curls)
    both = [curl + check for curl, check in zip(curls, checks, strict=True)]
    return [
        Claim(
            "an image reaches a host: time over curl's",
            min(ours) / min(curls),
            CURL_FACTOR,
            "times",
            f"{mib} MiB, {ROUNDS} rounds in turn: {rate:.0f} MiB/s, sha512 included, and curl {curl_rate:.0f} MiB/s",
        ),
        Claim(
            "... over curl's and sha512sum's, one after the other",
            min(ours) / min(both),
            CHECKED_FACTOR,
            "times",
            "the same rounds; what somebody would do by hand",
        ),
        Claim("... CPU of the API", 1000 * median(cpu) / (mib / 1024), 3000.0, "ms", "for each GiB that it gives"),
    ]


async def _by_host(api: Api, ticket: ImageTicket, image: ImageRef, target: Path) -> tuple[float, float]:
    """How long it takes, and the API's CPU."""
    await asyncio.to_thread(target.unlink, missing_ok=True)
    driver = HttpImages("h1", VERIFIER, SystemClock(), SystemChance())
    before_s, began_s = cpu_seconds([api.process.pid]), time.monotonic()
    await driver.fetch(image, target, ticket)
    took_s = time.monotonic() - began_s
    driver.close()
    return took_s, cpu_seconds([api.process.pid]) - before_s


def _by_curl(api: Api, ticket: ImageTicket, image: ImageRef, target: Path) -> tuple[float, float]:
    """How long curl takes, and sha512sum of what it has written."""
    target.unlink(missing_ok=True)
    headers = f"{TICKET_HEADER}: {ticket.token}\n{VERIFIER_HEADER}: {VERIFIER}\n"
    (api.home / "headers").write_text(headers)
    command = ["curl", "-sSf", "-o", str(target), "-H", f"@{api.home}/headers", f"{api.url}{PATH}/{image.id}"]
    began_s = time.monotonic()
    subprocess.run(command, check=True, timeout=120)
    curl_s = time.monotonic() - began_s
    summed = subprocess.run(["sha512sum", str(target)], check=True, capture_output=True, text=True, timeout=120)
    assert summed.stdout.startswith(image.sha512), "curl has what the host has"
    return curl_s, time.monotonic() - began_s - curl_s


async def _many_hosts(api: Api, image_id: str) -> list[Claim]:
    """From one process here, which also asks: what it waits for is the API's loop, or this machine's processors."""
    store = await api.open()
    lags = list[float]()
    try:
        image = await api.ref(store, image_id)
        hosts = [f"h{number}" for number in range(HOSTS)]
        tickets = [await api.ticket(store, image, host) for host in hosts]
        drivers = [HttpImages(host, VERIFIER, SystemClock(), SystemChance()) for host in hosts]
        before_mib, most_mib = pss_mib([api.process.pid]), 0.0
        began_s = time.monotonic()
        fetching = [
            asyncio.create_task(driver.fetch(image, api.home / host, ticket))
            for driver, host, ticket in zip(drivers, hosts, tickets, strict=True)
        ]
        while not all(one.done() for one in fetching):
            lags.append(await asyncio.to_thread(_lag_ms, api))
            most_mib = max(most_mib, pss_mib([api.process.pid]))
            await asyncio.sleep(0.1)
        await asyncio.gather(*fetching)
        took_s = time.monotonic() - began_s
        for driver in drivers:
            driver.close()
    finally:
        await store.close()
    mib = HOSTS_SIZE_BYTES >> 20
    return [
        Claim(
            f"{HOSTS} hosts want one image: until the last has it",
            took_s,
            60.0,
            "s",
            f"{mib} MiB each, 16 at once; {HOSTS * mib / took_s:.0f} MiB/s in all",
        ),
        Claim("... memory that the API takes for it", most_mib - before_mib, 100.0, "MiB", "PSS, at most seen"),
        Claim("... the API's loop is late by", max(lags), LAG_MS, "ms", "worst of droveway_loop_lag_seconds meanwhile"),
    ]


def _lag_ms(api: Api) -> float:
    client = Client(api.port)
    _, _, text = client._request("GET", "/metrics")
    found = [line for line in text.decode().splitlines() if line.startswith("droveway_loop_lag") and " " in line]
    return max((1000 * float(line.rpartition(" ")[2]) for line in found), default=0.0)
