"""Law 6: nothing stalls the loop: its lag under an upload, 32 logins and 10,000-row lists at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sqlite3
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from droveway.config.file import ApiConfig, Config
from droveway.process.control import control
from droveway.store.upgrade import bring_up_to_date
from lab.client import Client
from lab.nodes import free_ports

LAG_MAX_MS, ATTEMPTS, UPLOAD_MIB, LOGINS, ROWS = 50.0, 4, 1024, 32, 10_000
SAMPLE_S = 0.005
CLONE = Path(__file__).resolve().parents[1]


@pytest.mark.alone
def test_the_loop_lags_at_most_50_ms_under_load(tmp_path: Path) -> None:
    """A noisy machine lags by itself, so the best of a few runs counts: how long we held the loop is in all of them."""
    gc.collect()
    gc.freeze()  # what thousands of other tests have left is not the program's, and would be walked in its loop
    try:
        asyncio.run(_story(tmp_path))
    finally:
        gc.unfreeze()


async def _story(home: Path) -> None:
    (port,) = free_ports(1)
    config = Config(state_path=str(home), api=ApiConfig(f"127.0.0.1:{port}", str(home / "clouds.yaml")))
    bring_up_to_date(config.database_url)
    _fill(home / "droveway.sqlite")
    serving = asyncio.create_task(control(config))
    lags: list[float] = []
    gauge = asyncio.create_task(_gauge(lags))
    try:
        async with asyncio.timeout(30):
            while not (home / "clouds.yaml").exists() or not await asyncio.to_thread(Client(port).answers):
                await asyncio.sleep(0.02)
        worst = []
        for _ in range(ATTEMPTS):
            lags.clear()
            load = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.test_lag",
                str(port),
                str(home / "clouds.yaml"),
                cwd=Path(__file__).parents[1],
            )
            assert await load.wait() == 0
            worst.append(max(lags))
            if worst[-1] <= LAG_MAX_MS:
                break
        assert min(worst) <= LAG_MAX_MS, f"the loop lagged {worst} ms in {ATTEMPTS} runs"
    finally:
        for task in (gauge, serving):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(gauge, serving)


async def _gauge(lags: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(SAMPLE_S)
        lags.append((loop.time() - before - SAMPLE_S) * 1000)


def _fill(path: Path) -> None:
    row = "insert into services(uuid, host, binary, zone, disabled, forced_down, is_up, reason, report_count,"
    row += " created_at_us, updated_at_us) values(?, ?, 'nova-conductor', 'nova', 0, 0, 1, '', 0, 1, 1)"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executemany(row, [(f"u{number}", f"h{number}") for number in range(ROWS)])
        database.commit()


def _load(port: int, clouds_yaml: Path) -> None:
    """In a process of its own: an upload, the logins, and lists for as long as those take."""
    client = Client(port)
    client.log_in(clouds_yaml)
    headers = {"x-auth-token": client.token, "content-type": "application/json"}

    def ask(method: str, path: str, body: object = None, kind: str = "application/json") -> bytes:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers | {"content-type": kind})  # type: ignore[arg-type]
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, text
            return text

    image = json.loads(
        ask("POST", "/image/v2/images", json.dumps({"name": "big", "disk_format": "raw", "container_format": "bare"}))
    )["id"]
    block = bytes(1 << 20)
    jobs = [
        threading.Thread(
            target=lambda: ask(
                "PUT", f"/image/v2/images/{image}/file", (block for _ in range(UPLOAD_MIB)), "application/octet-stream"
            )
        )
    ]
    jobs += [threading.Thread(daemon=True, target=lambda: Client(port).log_in(clouds_yaml)) for _ in range(LOGINS)]
    for job in jobs:
        job.start()
    for _ in range(3):
        assert ask("GET", "/compute/v2.1/os-services").count(b'"id"') >= ROWS
    for job in jobs:
        job.join(120)
        assert not job.is_alive()
    ask("DELETE", f"/image/v2/images/{image}")


if __name__ == "__main__":
    _load(int(sys.argv[1]), Path(sys.argv[2]))
