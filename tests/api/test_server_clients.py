"""Key pairs, and servers with networks, as the unmodified `openstack` command asks for them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.api.test_network_clients import Cloud

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


def test_the_command_makes_imports_shows_and_deletes_key_pairs(cloud: Cloud, tmp_path: Path) -> None:
    cli = cloud.openstack
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode() + " me"
    (tmp_path / "id.pub").write_text(line + "\n")
    imported = cli("keypair", "create", "mine", "--public-key", str(tmp_path / "id.pub"))
    assert (imported["name"], imported["type"]) == ("mine", "ssh")
    private = tmp_path / "made"
    made = cli("keypair", "create", "made", "--private-key", str(private))
    assert b"PRIVATE KEY" in private.read_bytes() and len(made["fingerprint"]) == 47
    assert [(one["Name"], one["Type"]) for one in cli("keypair", "list")] == [("made", "ssh"), ("mine", "ssh")]
    assert cli("keypair", "show", "mine")["fingerprint"] == imported["fingerprint"]
    assert line in str(cli("keypair", "show", "mine", "--public-key"))
    (tmp_path / "no.pub").write_text("no key")
    assert "no SSH public key" in cli("keypair", "create", "no", "--public-key", str(tmp_path / "no.pub"), fails=True)
    assert "already exists" in cli("keypair", "create", "mine", fails=True)
    cli("keypair", "delete", "mine", "made")
    assert cli("keypair", "list") == []
    assert "No Keypair found" in cli("keypair", "show", "mine", fails=True)


def test_the_command_asks_for_networks_keys_and_data(cloud: Cloud, tmp_path: Path) -> None:
    cli = cloud.openstack
    data, script = tmp_path / "disk", tmp_path / "script"
    data.write_bytes(bytes(1024))
    script.write_text("#!/bin/sh\necho hello\n")
    cli("image", "create", "disk", "--file", str(data), "--disk-format", "raw", "--container-format", "bare")
    cli("network", "create", "red")
    cli("subnet", "create", "s", "--network", "red", "--subnet-range", "10.1.0.0/24")
    cli("port", "create", "front", "--network", "red")
    cli("security", "group", "create", "web")
    cli("keypair", "create", "k", "--private-key", str(tmp_path / "k"))

    def create(name: str, *words: str) -> dict[str, Any]:
        shown: dict[str, Any] = cli("server", "create", name, "--image", "disk", "--flavor", "tiny", *words)
        return shown

    nic = ("--network", "red", "--port", "front", "--security-group", "web")
    made = create("g1", *nic, "--key-name", "k", "--user-data", str(script), "--use-config-drive")
    assert (made["key_name"], made["config_drive"]) == ("k", "True")
    shown = cli("server", "show", "g1")
    assert base64.b64decode(shown["OS-EXT-SRV-ATTR:user_data"]) == script.read_bytes()
    create("g2", "--nic", "net-id=red,v4-fixed-ip=10.1.0.9,tag=a")
    create("g3", "--nic", "auto")
    create("g4", "--nic", "none", "--no-config-drive")
    assert "Invalid key_name" in cli(
        "server", "create", "g5", "--image", "disk", "--flavor", "tiny", "--nic", "none", "--key-name", "z", fails=True
    )
    assert {one["Name"] for one in cli("server", "list")} == {"g1", "g2", "g3", "g4"}
