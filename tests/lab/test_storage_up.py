"""`./dev up --storage`: volumes on lab hosts that reach them over a network, and root disks in Ceph: attached, moved
with their server, given back; something killed in the middle of each; and nothing left but what is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import block, processes
from lab.compute import Compute
from lab.hosts import obstacle
from lab.servers import obstacle as missing
from lab.storage import ROOTS
from tests.lab import volume_faults
from tests.lab.volume_faults import Fault
from tests.lab.volume_scene import CINDER, Guest, guest_in_cloud
from tests.lab.witness import home_is_clean

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
NEEDS = {"ceph": missing("ceph"), "lvm": missing("lvm") or missing("nbdkit")}
KINDS = [pytest.param(kind, marks=pytest.mark.skipif(why is not None, reason=str(why))) for kind, why in NEEDS.items()]


@pytest.fixture(scope="module")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """One cloud a kind, for all of these: in the end nothing is left of what they did."""
    with guest_in_cloud(request.param) as made:
        yield made
        cloud = made.cloud
        made.usable()
        made.compute.delete(made.id)
        made.nothing_is_wrong()
        if made.kind == "ceph":
            left = cloud.storage.ceph().ask("rbd", "-p", ROOTS, "ls").split()
            assert [name for name in left if not name.startswith("image-")] == []
        made.compute.close()
        cloud.down()
        home_is_clean(cloud)
        assert not processes.with_environment(f"DROVEWAY_STORAGE={cloud.home}")
        assert block.loops(cloud.home) == []


@pytest.mark.parametrize("guest", KINDS, indirect=True)
def test_an_agent_is_killed_at_an_attachment_and_volumes_move_with_their_server(guest: Guest) -> None:
    one, two = guest.volume(), guest.volume()
    guest.attach(one)
    guest.until(one, "in-use")
    volume_faults.attach_with(guest, volume_faults.AGENT, two)
    source = guest.compute.host_of(guest.id)
    guest.compute.migrate(guest.id)
    moved = guest.compute.wait_migrated(guest.id)
    assert moved["status"] == "completed", guest.cloud.log.read_text()[-3000:]
    server = guest.compute.wait(guest.id, "ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] != source
    guest.goes_on()
    assert sorted(guest.has()) == sorted((one, two))
    for volume in (one, two):
        guest.detach(volume)
        guest.until(volume, "available")
        guest.delete(volume)
    guest.nothing_is_wrong()


@pytest.mark.parametrize("guest", KINDS, indirect=True)
def test_whatever_is_killed_it_ends_as_it_would_have(guest: Guest) -> None:
    """Each step and each victim once, over both kinds."""
    for fault in volume_faults.CORE[guest.kind]:
        print(fault)
        volume_faults.play(guest, fault)
    guest.goes_on()


@pytest.mark.full
@pytest.mark.parametrize("guest", KINDS, indirect=True)
@pytest.mark.parametrize("fault", volume_faults.ALL["ceph"], ids=str)
def test_each_victim_at_each_step(guest: Guest, fault: Fault) -> None:
    if fault in volume_faults.ALL[guest.kind]:
        volume_faults.play(guest, fault)
        guest.goes_on()


@pytest.mark.full
@pytest.mark.parametrize("guest", KINDS, indirect=True)
def test_volumes_are_kept_while_the_cloud_is_down(guest: Guest) -> None:
    cloud, one = guest.cloud, guest.volume()
    guest.compute.delete(guest.id)
    guest.compute.close()
    cloud.down()
    cloud.up(simulated=False, foreground=False, quiet=True)
    guest.compute = Compute(cloud.port, cloud.clouds_yaml)
    assert guest.compute.must("GET", f"{CINDER}/volumes/{one}")["volume"]["status"] == "available"
    guest.delete(one)
    guest.id = guest.compute.create("again", guest.compute.image_id())
    guest.compute.wait(guest.id, "ACTIVE")
