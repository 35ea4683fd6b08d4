"""A host that a client names is admitted to a volume, and let go of again, whatever breaks."""

from __future__ import annotations

import pytest

from droveway.domain.model import SagaKind
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus, of_volume
from droveway.drivers.clock import SystemNames
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, making, volumes
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import AttachmentRow
from droveway.store.work import sagas
from tests.control.test_volumes import FAST, begin, check, create, row
from tests.control.world import Break, World, world


async def reserve(w: World, volume_id: str) -> str:
    attachment_id = SystemNames().uuid()
    new = AttachmentRow(
        id=attachment_id,
        volume_id=volume_id,
        project_id="p",
        instance_id=None,
        host=None,
        to_host=None,
        status=AttachmentStatus.RESERVED.value,
        read_only=False,
        device=None,
        source=None,
        connector=None,
        bus="virtio",
        boot_index=-1,
        place=0,
        delete_on_termination=False,
        tag=None,
        attached_at_us=None,
        created_at_us=1,
    )
    await w.store.run(attachments.insert_row, new)
    await w.store.run(volumes.set_, volume_id, status=VolumeStatus.RESERVED.value)
    return attachment_id


async def test_the_host_is_admitted_and_let_go_of() -> None:
    async with world(backends=(FAST,)) as w:
        volume_id = await create(w)
        attachment_id = await reserve(w, volume_id)
        await begin(w, Verb.CONNECT, volume_id, {"attachment_id": attachment_id, "host": "h2"})
        held = await w.store.read(attachments.get, attachment_id)
        assert held["host"] == "h2" and held["source"] is not None and held["status"] == "attaching"
        assert w.pools[FAST].volumes[volume_id].admitted == {"h2"}
        params = {"attachment_id": attachment_id, "hosts": ["h2"], "is_to_go": False, "force": False}
        await w.store.run(sagas.enqueue, SagaKind.FREE_VOLUME, of_volume(volume_id), "p", params, request_id="req")
        await w.quiet()
        assert (await row(w, volume_id))["status"] == "available"
        assert await w.store.read(attachments.of_volume, volume_id) is None
        assert w.pools[FAST].volumes[volume_id].admitted == set()
        await check(w)


@pytest.mark.parametrize("breaks", Break)
async def test_what_breaks_leaves_a_reservation_or_an_admission(breaks: Break) -> None:
    async with world(backends=(FAST,)) as w:
        volume_id = await create(w)
        attachment_id = await reserve(w, volume_id)
        w.commands.clear()
        w.at, w.breaks = 1, breaks
        await begin(w, Verb.CONNECT, volume_id, {"attachment_id": attachment_id, "host": "h2"})
        held = await w.store.read(attachments.get, attachment_id)
        admitted = w.pools[FAST].volumes[volume_id].admitted
        if held["host"] is None:
            assert (held["status"], held["source"], admitted) == ("reserved", None, set())
            assert (await row(w, volume_id))["status"] == "reserved"
        else:
            assert (held["host"], admitted) == ("h2", {"h2"})
        await check(w)


async def test_one_that_is_held_is_not_given_to_another_host() -> None:
    async with world(backends=(FAST,)) as w:
        volume_id = await create(w)
        attachment_id = await reserve(w, volume_id)
        await w.store.run(attachments.set_, attachment_id, host="h1")

        def write(tx: Tx) -> str:
            params = {"attachment_id": attachment_id, "host": "h2"}
            return making.begin(tx, Verb.CONNECT, volumes.get(tx, volume_id), params, Asked("req"))

        saga_id = await w.store.run(write)
        await w.quiet()
        ended = await w.store.read(sagas.get, saga_id)
        assert ended["status"] == "undone" and "is held already" in ended["error"]
        assert (await w.store.read(attachments.get, attachment_id))["host"] == "h1"
