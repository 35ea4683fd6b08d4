"""A wrong configuration does not start, and says which key, why, and what would be right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from droveway.config.file import load
from droveway.domain.faults import WrongConfiguration

GOOD = 'state_path = "/tmp/d"\n'


BACKEND_ALONE = '[[host]]\nname = "a"\nhypervisor = "simulated"\n[[host.backend]]\nname = "fast"\ndriver = "simulated"'
BACKEND = (
    GOOD + '[[host]]\nname = "a"\nhost_state_path = "/tmp/a"\nservices = ["cinder-volume@fast"]\n'
    '[[host.backend]]\nname = "fast"\n'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stat_path = 1", ["unknown key", "stat_path", "state_path"]),
        (GOOD + "report_interval = 'soon'", ["report_interval", "float"]),
        (GOOD + "report_interval = 10.0\nservice_down_time = 5.0", ["report_interval", "smaller", "service_down_time"]),
        (GOOD + "report_interval = 3.0", ["report_interval", "smaller"]),
        (GOOD + "report_interval = 0.0", ["report_interval = 0.0", "from 0.01 to 3600 seconds", "such as 1.0"]),
        (GOOD + "report_interval = nan", ["report_interval = nan", "from 0.01"]),
        (GOOD + "report_interval = -1.0", ["report_interval = -1.0"]),
        (GOOD + "report_interval = -inf", ["report_interval = -inf"]),
        (GOOD + "service_down_time = nan", ["service_down_time = nan"]),
        (GOOD + "service_down_time = inf", ["service_down_time = inf", "to 3600 seconds"]),
        (GOOD + "shutdown_timeout = -5.0", ["shutdown_timeout = -5.0", "from 0 to"]),
        (GOOD + "shutdown_timeout = nan", ["shutdown_timeout = nan"]),
        (GOOD + "[api]\ntoken_expiry_s = 0", ["api.token_expiry_s = 0", "from 1"]),
        (GOOD + f"[api]\ntoken_expiry_s = {10**15}", ["api.token_expiry_s = 1000000000000000"]),
        (GOOD + "[api]\nmax_image_gib = -1", ["api.max_image_gib = -1"]),
        (GOOD + "[scheduler]\ncpu_allocation_ratio = 0.0", ["scheduler.cpu_allocation_ratio = 0.0"]),
        (GOOD + "[scheduler]\nram_allocation_ratio = -1.0", ["scheduler.ram_allocation_ratio = -1.0"]),
        (GOOD + "[scheduler]\ndisk_allocation_ratio = nan", ["scheduler.disk_allocation_ratio = nan"]),
        (GOOD + "[scheduler]\nreserved_host_memory_mb = -1", ["scheduler.reserved_host_memory_mb = -1", "MiB"]),
        (GOOD + "[scheduler]\nwait_for_capacity = inf", ["scheduler.wait_for_capacity = inf", "such as 600.0"]),
        (
            GOOD + "[scheduler]\nwait_for_room = 600.0",
            ["wait_for_room in [scheduler] is now called wait_for_capacity", "its value stays as it is"],
        ),
        (GOOD + "[scheduler]\nmax_attempts = 0", ["scheduler.max_attempts = 0 must be from 1 to 100 hosts"]),
        (GOOD + "[scheduler]\nram_weight_multiplier = nan", ["scheduler.ram_weight_multiplier = nan"]),
        (GOOD + "[quota]\ninstances = -2", ["quota.instances = -2 must be from -1 to", "-1 is no limit"]),
        (GOOD + "[quota]\ncpus = 4", ["unknown key", "cpus", "the keys there are instances, cores, ram"]),
        (GOOD + 'name = ""', ["name = ''", "1 to 64"]),
        (GOOD + 'name = "a/b"', ["name = 'a/b'"]),
        (GOOD + '[api]\nregion = ""', ["api.region = ''"]),
        (GOOD + '[[host]]\nname = ""\nhypervisor = "simulated"', ["the name of a [[host]] = ''"]),
        (GOOD + '[[host]]\nname = "a b"\nhypervisor = "simulated"', ["the name of a [[host]] = 'a b'"]),
        ('state_path = "here"', ["absolute"]),
        (GOOD + '[api]\nlisten = "8774"', ["api.listen", "ADDRESS:PORT"]),
        (GOOD + '[api]\nlisten = "::1:9901"', ["'::1:9901'", "in brackets", "[::1]:9901"]),
        (GOOD + '[api]\nlisten = "[::g]:9901"', ["no IPv6 address"]),
        (GOOD + '[api]\nlisten = "127.0.0.1:٣"', ["ADDRESS:PORT"]),
        (GOOD + '[api]\nlisten = "0.0.0.0:9901"', ["every address", "api.url", "http://cloud.example:8774"]),
        (GOOD + '[api]\nlisten = "[::]:9901"', ["every address", "api.url"]),
        (GOOD + '[api]\nlisten = "[0::0]:9901"', ["every address", "api.url"]),
        (GOOD + "[api]\nmax_connections = 1", ["api.max_connections = 1 must be from 16 to 65536 connections"]),
        (GOOD + "[api]\nheader_timeout_s = nan", ["api.header_timeout_s = nan must be from 0.1 to 600 seconds"]),
        (GOOD + "[api]\nmax_header_bytes = 10", ["api.max_header_bytes = 10 must be from 4096"]),
        (GOOD + "[zookeeper]\nsg_prefx = 1", ["unknown key", "sg_prefx", "keys there are address, sg_prefix"]),
        (GOOD + "[etcd]\nleas = 1", ["unknown key", "leas", "address, prefix, lease, tls_ca"]),
        (GOOD + "[memcached]\nport = 1", ["unknown key", "port", "keys there are address, tls_ca"]),
        (GOOD + "[nats]\nport = 1", ["unknown key", "keys there are servers, user"]),
        (GOOD + "[agents.nats]\nport = 1", ["unknown key", "keys there are servers, user"]),
        (GOOD + "[agents]\nkafka = 1", ["unknown key", "keys there are nats, rabbitmq"]),
        (GOOD + 'image_store = "nfs"', ["image_store = 'nfs'", "file or path"]),
        (GOOD + '[agents]\napi_urls = ["api.example"]', ["agents.api_urls", "'api.example'", "http://HOST:PORT"]),
        (GOOD + '[agents]\napi_urls = ["http://u:p@api.example"]', ["agents.api_urls", "http://HOST:PORT"]),
        (GOOD + "[image_cache]\nmax_gb = 1", ["unknown key", "keys there are max_gib, max_age_hours, tls_ca"]),
        (GOOD + "[image_cache]\nmax_gib = -1", ["image_cache.max_gib = -1", "GiB, such as 50"]),
        (GOOD + "[image_cache]\nmax_age_hours = 0", ["image_cache.max_age_hours", "hours, such as 24"]),
        (GOOD + "[api]\nimage_streams_max = 0", ["api.image_streams_max = 0", "such as 16"]),
        (
            GOOD + 'role = "control"\nbus = "nats"\n[api]\nlisten = ""',
            ["agents.api_urls is missing", 'image_store = "path"'],
        ),
        (GOOD + '[[host]]\nname = "a"\nhypervisor = "simulated"\nuri = 1', ["unknown key", "keys there are name, hyp"]),
        (GOOD + "[api]\nport = 1", ["unknown key", "port", "listen"]),
        (GOOD + '[[host]]\nname = "a"\nhypervisor = "xen"', ["host a", "libvirt or simulated"]),
        (GOOD + '[[host]]\nname = "a"\nhypervisor = "libvirt"', ["host a", "is missing"]),
        (GOOD + '[[host]]\nname="a"\nhypervisor="simulated"\n[[host]]\nname="a"\nhypervisor="simulated"', ["two"]),
        (
            GOOD + 'database = "mysql://u:secret@h/d"',
            ["database = mysql://", "postgresql://USER:PASSWORD@HOST:PORT/NAME"],
        ),
        (GOOD + 'database = "droveway.sqlite"', ["database must be sqlite:///FILE"]),
        (GOOD + 'database = "postgresql://u:secret@h"', ["database must be", "/NAME"]),
        (GOOD + 'database = "postgresql://u:se/cret@h/d"', ["database", "percent-encoded"]),
        (GOOD + 'database = "postgresql://u:secret@h:54x/d"', ["database", "no port"]),
        (BACKEND + 'driver = "zfs"', ["host a: backend fast", "driver = 'zfs' must be dir, rbd, lvm or simulated"]),
        (BACKEND + 'driver = "dir"', ["backend fast: path is missing; the driver dir needs it"]),
        (BACKEND + 'driver = "simulated"\nmax_over_subscription_ratio = 0', ["ratio = 0 must be from 1 to 1000"]),
        (BACKEND + 'driver = "simulated"\nreserved_percentage = 120', ["reserved_percentage = 120", "0 to 99"]),
        (BACKEND + 'driver = "simulated"\ncolour = 1', ["unknown key", "colour", "keys there are name, driver"]),
        (BACKEND.replace("@fast", "@slow") + 'driver = "simulated"', ["cinder-volume@slow has no [[host.backend]]"]),
        (GOOD + BACKEND_ALONE, ["backend fast: no service has it; add cinder-volume@fast to services"]),
        ("", ["missing key", "state_path"]),
        ("=", ["is not TOML"]),
    ],
)
def test_wrong_configuration_names_the_key(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "droveway.toml"
    path.write_text(text)
    with pytest.raises(WrongConfiguration) as caught:
        load(path)
    for word in words:
        assert word in caught.value.reason
    assert "cret" not in caught.value.reason


def test_what_stands_in_the_bounds_starts(tmp_path: Path) -> None:
    path = tmp_path / "droveway.toml"
    path.write_text(GOOD + "report_interval = 1\nservice_down_time = 10\nshutdown_timeout = 0")
    assert (load(path).report_interval, load(path).shutdown_timeout) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("listen", "url", "told"),
    [
        ("127.0.0.1:8774", "", "http://127.0.0.1:8774"),
        ("[::1]:8774", "", "http://[::1]:8774"),
        ("0.0.0.0:8774", "https://cloud.example/", "https://cloud.example"),
        ("[::]:8774", "http://cloud.example:8774", "http://cloud.example:8774"),
    ],
)
def test_where_clients_are_told_to_go(tmp_path: Path, listen: str, url: str, told: str) -> None:
    path = tmp_path / "droveway.toml"
    path.write_text(f'{GOOD}[api]\nlisten = "{listen}"\nurl = "{url}"')
    assert load(path).api_url == told


def test_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(WrongConfiguration, match="no such file"):
        load(tmp_path / "none.toml")


def test_the_command_ends_with_one_reason_and_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "droveway.toml"
    path.write_text(GOOD + "report_interval = 9.0")
    done = subprocess.run(
        [sys.executable, "-m", "droveway.main", "all", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1 and "report_interval" in done.stderr
