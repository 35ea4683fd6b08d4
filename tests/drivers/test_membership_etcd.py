"""What ends a member of etcd while its tasks fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from droveway.drivers.membership.etcd import EtcdServiceGroup
from droveway.ports.membership import EVERY_SERVICE
from lab import servers
from tests.drivers.membership_worlds import World, etcd_settings

OBSTACLE = servers.obstacle("etcd")
pytestmark = [pytest.mark.servers, pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")]
H1 = "h1/nova-compute"
SOON_S = 30.0


async def test_etcd_is_closed_while_its_tasks_fail(tmp_path: Path) -> None:
    """The lease is revoked, so they do; whoever closes does not wait for ever."""

    async def fails(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError("etcd ended the watch") from None

    with servers.etcd(tmp_path) as server:
        world = World(etcd_settings(server.address))
        async with world.opened() as seen:
            assert isinstance(seen.end, EtcdServiceGroup)
            seen.end._watch = fails  # type: ignore[method-assign]
            await seen.end.join(EVERY_SERVICE, H1)
            await seen.until(H1, "present", within_s=SOON_S)
            await asyncio.wait_for(seen.end.close(), 10)
