"""Block Storage as the unmodified `openstack` command, openstacksdk and python-cinderclient speak it, against an API
that is really served; what sagas would do is done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from cinderclient import client as cinder_client
from openstack.config import loader
from openstack.connection import Connection

from droveway.store.volume import snapshots
from tests.api.test_services_cli import Served
from tests.api.volume_world import FAST, SLOW, VolumeWorld, add_backend
from tests.api.world import World
from tests.openstack_process import OpenstackProcess

pytestmark = pytest.mark.slow


class Cloud(Served):
    """With two backends, and a catalog that names the port on which it is served."""

    def make_world(self, directory: Path) -> World:
        return World(directory, base_url=f"http://127.0.0.1:{self.port}")

    def start(self) -> None:
        super().start()
        for name in (FAST, SLOW):
            self.run(self.world.store.run(add_backend, name))
        self.volumes = VolumeWorld(self.world)
        self._shell = OpenstackProcess(self.home / "clouds.yaml")
        self.openstack = self._shell.run

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def done(self, volume_id: str, **values: Any) -> None:
        self.run(self.volumes.done(volume_id, **({"status": "available", "host": FAST} | values)))

    def snapshot_done(self, snapshot_id: str) -> None:
        self.run(self.volumes.end_sagas(snapshot_id))
        self.run(self.world.store.run(snapshots.set_, snapshot_id, status="available"))

    def connection(self) -> Connection:
        files = loader.OpenStackConfig(config_files=[str(self.home / "clouds.yaml")], load_envvars=False)
        return Connection(config=files.get_one("droveway"))

    def stop(self) -> None:
        self._shell.close()
        super().stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


def test_the_command_tells_the_life_of_a_volume(cloud: Cloud) -> None:
    cli = cloud.openstack
    made = cli("volume", "create", "--size", "1", "--description", "mine", "--property", "a=b", "v1")
    assert (made["name"], made["size"], made["status"], made["type"]) == ("v1", 1, "creating", "__DEFAULT__")
    cloud.done(made["id"])
    cli("volume", "set", "--property", "c=d", "--name", "v2", "v1")
    cli("volume", "set", "--size", "2", "v2")
    cloud.done(made["id"], size_gb=2, growing_to_gb=None)
    shown = cli("volume", "show", "v2")
    assert (shown["size"], shown["properties"], shown["os-vol-host-attr:host"]) == (
        2,
        {"a": "b", "c": "d"},
        "h1@fast#fast",
    )
    snapshot = cli("volume", "snapshot", "create", "--volume", "v2", "--force", "s1")
    cloud.snapshot_done(snapshot["id"])
    copy = cli("volume", "create", "--snapshot", "s1", "v3")
    assert (copy["size"], copy["snapshot_id"]) == (2, snapshot["id"])
    cloud.done(copy["id"])
    assert {one["Name"] for one in cli("volume", "list")} == {"v2", "v3"}
    assert "must not have snapshots" in cli("volume", "delete", "v2", fails=True)
    cli("volume", "transfer", "request", "create", "--name", "t", "v3")
    assert cli("volume", "show", "v3")["status"] == "awaiting-transfer"
    cli("volume", "type", "create", "--property", "volume_backend_name=fast", "fast")
    cli("volume", "qos", "create", "--consumer", "front-end", "--property", "total_iops_sec=100", "q")
    cli("volume", "qos", "associate", "q", "fast")
    assert cli("volume", "qos", "show", "q")["associations"] == ["fast"]
    cli("volume", "set", "--type", "fast", "v2")
    assert cli("volume", "show", "v2")["status"] == "retyping"


def test_the_command_shows_what_operators_look_at(cloud: Cloud) -> None:
    cli = cloud.openstack
    rows = {one["Host"]: one for one in cli("volume", "service", "list", "--long") if one["Binary"] == "cinder-volume"}
    assert {host: one["State"] for host, one in rows.items()} == {FAST: "up", SLOW: "up"}
    cli("volume", "service", "set", "--disable", "--disable-reason", "old disks", SLOW, "cinder-volume")
    rows = {one["Host"]: one for one in cli("volume", "service", "list", "--long") if one["Binary"] == "cinder-volume"}
    assert (rows[SLOW]["Status"], rows[SLOW]["Disabled Reason"]) == ("disabled", "old disks")
    assert [one["Name"] for one in cli("volume", "backend", "pool", "list")] == ["h1@fast#fast", "h2@slow#slow"]
    assert cli("availability", "zone", "list", "--volume") == [{"Zone Name": "nova", "Zone Status": "available"}]
    cli("quota", "set", "--volumes", "7", "admin")
    shown = {one["Resource"]: one["Limit"] for one in cli("quota", "show", "--volume", "admin")}
    assert shown["volumes"] == 7


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")  # of its own parts
def test_openstacksdk_finds_filters_and_resets(cloud: Cloud) -> None:
    with cloud.connection() as sdk:
        storage = sdk.block_storage
        made = storage.create_volume(size=1, name="sdk", metadata={"k": "v"})
        cloud.done(made.id)
        assert storage.find_volume("sdk", ignore_missing=False).id == made.id
        assert [one.id for one in storage.volumes(details=True, name="sdk")] == [made.id]
        storage.reset_volume_status(made, status="error")
        assert storage.get_volume(made.id).status == "error"
        attachment = storage.create_attachment(cloud_volume(cloud, storage), connector={})
        assert attachment.status == "reserved"
        storage.delete_attachment(attachment)
        assert storage.get_limits().absolute.max_total_volumes in (-1, 7)
        storage.delete_volume(made, force=True)


def cloud_volume(cloud: Cloud, storage: Any) -> str:
    made = storage.create_volume(size=1)
    cloud.done(made.id)
    return str(made.id)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")  # of its own parts
def test_cinderclient_speaks_its_own_version(cloud: Cloud) -> None:
    with cloud.connection() as sdk:
        cinder = cinder_client.Client("3.70", session=sdk.session)
        made = cinder.volumes.create(1, name="cinder", metadata={"k": "v"})
        cloud.done(made.id)
        assert [one.id for one in cinder.volumes.list(search_opts={"name": "cinder"})] == [made.id]
        cinder.volumes.set_bootable(made, True)
        assert cinder.volumes.get(made.id).bootable == "true"
        attachment = cinder.attachments.create(made.id, None, None)
        assert attachment["status"] == "reserved"
        assert [one.id for one in cinder.attachments.list()] == [attachment["id"]]
        cinder.attachments.delete(attachment["id"])
        assert {one.host: one.status for one in cinder.services.list(binary="cinder-volume")}[FAST] == "enabled"
        assert [one.name for one in cinder.pools.list()] == ["h1@fast#fast", "h2@slow#slow"]
        assert cinder.volume_types.default().name == "__DEFAULT__"
        assert cinder.messages.list() == []
        cinder.volumes.delete(made)
