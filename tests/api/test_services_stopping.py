"""A stream that would go on for ever does not keep the program from ending."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from lab.client import Client
from lab.nodes import free_ports
from lab.processes import wait_for

SOON_S, AT_ONCE_S = 60.0, 1.0


@pytest.mark.alone
def test_streams_end_at_once_when_the_program_is_told_to_stop(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "droveway.toml"
    config.write_text(
        f'state_path = "{tmp_path}"\n[api]\nlisten = "127.0.0.1:{port}"\nclouds_yaml = "{tmp_path}/clouds.yaml"\n'
    )
    with (tmp_path / "said").open("wb") as said:
        command = [sys.executable, "-m", "droveway.main", "control", "--config", str(config)]
        control = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        client = Client(port)
        assert wait_for(client.answers, SOON_S), (tmp_path / "said").read_text()
        client.log_in(tmp_path / "clouds.yaml")
        connection = HTTPConnection("127.0.0.1", port, timeout=SOON_S)
        connection.request("GET", "/droveway/v1/services/events", headers={"X-Auth-Token": client.token})
        stream = connection.getresponse()
        assert (stream.status, stream.getheader("content-type")) == (200, "text/event-stream")
        assert stream.readline().startswith(b"retry: ")
        told_s = time.monotonic()
        control.send_signal(signal.SIGTERM)
        assert b"event:" not in stream.read()  # to its end
        assert time.monotonic() - told_s <= AT_ONCE_S
        connection.close()
        assert control.wait(SOON_S) == 0
        assert time.monotonic() - told_s <= 2 * AT_ONCE_S
    finally:
        if control.poll() is None:
            control.terminate()
            control.wait(SOON_S)
    assert "Traceback" not in (tmp_path / "said").read_text()
