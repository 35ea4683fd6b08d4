"""Cold migration and resize as clients ask for them: what is taken, what is refused, and how a server shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.domain.model import Flavor
from droveway.domain.resize import FormerPlace, sizes_of
from droveway.store.compute import flavors, instances, quotas
from droveway.store.work import sagas as saga_rows
from tests.api.test_actions import act, running, sagas_of
from tests.api.world import NOVA, World, in_world, reason

LARGER = Flavor("9", "larger", 2, 256, 50)


async def resized(world: World, server_id: str) -> None:
    """As the saga leaves it."""
    sizes = sizes_of(Flavor("1", "tiny", 1, 128, 1), begins_from_volume=False)
    former = msgspec.to_builtins(FormerPlace("h1", sizes, True, "s1"))
    saga_id = (await sagas_of(world, server_id))[-1]["id"]

    def write(tx: Any) -> None:
        saga_rows.cancel(tx, saga_id, "the test ends it")
        instances.set_(tx, server_id, vm_state="resized", task_state=None, former=former, resized_at_us=1)

    await world.store.run(write)


@pytest.mark.parametrize(
    ("version", "action", "code"),
    [
        (1, {"migrate": None}, 202),
        (55, {"migrate": None}, 202),
        (56, {"migrate": None}, 202),
        (56, {"migrate": {"host": "h2"}}, 202),
        (56, {"migrate": {"host": None}}, 202),
        (96, {"migrate": {"host": "nowhere"}}, 400),
        (96, {"migrate": {"host": "a b"}}, 400),
        (1, {"resize": {"flavorRef": "9"}}, 202),
        (96, {"resize": {"flavorRef": "9", "OS-DCF:diskConfig": "MANUAL"}}, 202),
        (1, {"resize": {"flavorRef": "none"}}, 400),
        (1, {"resize": {}}, 400),
        (1, {"resize": None}, 400),
        (1, {"confirmResize": None}, 409),
        (1, {"revertResize": None}, 409),
    ],
)
async def test_each_form(tmp_path: Path, version: int, action: dict[str, Any], code: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await world.store.run(flavors.create, LARGER)
        server_id = await running(world, token)
        reply = await act(world, token, server_id, action, f"2.{version}")
        assert reply.status_code == code, reply.text
        made = await sagas_of(world, server_id)
        if code != 202:
            assert len(made) == 1 and reason(reply)
            return
        shown = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).json()["server"]
        assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("RESIZE", "resize_prep")
        again = await act(world, token, server_id, {"migrate": None})
        assert again.status_code == 409 and "resize_prep" in reason(again)
        moves = (await world.ask("GET", f"{NOVA}/os-migrations", token=token, version="2.59")).json()["migrations"]
        (kind,) = action
        assert [one["migration_type"] for one in moves] == ["resize" if kind == "resize" else "migration"]
        assert moves[0]["status"] == "accepted"


async def test_who_may_and_what_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, member = await world.token(), await world.token("alice", "red")
        await world.store.run(flavors.create, LARGER)
        await world.store.run(flavors.create, Flavor("8", "greedy", 10_000, 256, 50))
        await world.store.run(flavors.create, Flavor("7", "flat", 1, 128, 0))
        server_id = await running(world, member)
        project_id = (await sagas_of(world, server_id))[0]["project_id"]
        await world.store.run(quotas.set_, quotas.scope_of(project_id), {"cores": 100})
        own = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=admin)).json()["server"]["flavor"]["id"]
        assert (await act(world, member, server_id, {"migrate": None})).status_code == 403
        for flavor_id, code, words in (
            (own, 400, "must change flavor"),
            ("7", 400, "zero disk"),
            ("8", 403, "Quota exceeded for cores"),
        ):
            reply = await act(world, member, server_id, {"resize": {"flavorRef": flavor_id}})
            assert reply.status_code == code and words in reason(reply), reply.text
        assert len(await sagas_of(world, server_id)) == 1
        assert (await act(world, member, server_id, {"resize": {"flavorRef": "9"}})).status_code == 202


async def test_one_that_waits_shows_it_and_is_confirmed_or_reverted(tmp_path: Path) -> None:
    for action, code, status in (("confirmResize", 204, "VERIFY_RESIZE"), ("revertResize", 202, "REVERT_RESIZE")):
        async with in_world(tmp_path / action) as world:
            token = await world.token()
            server_id = await running(world, token)
            await resized(world, server_id)
            address = f"{NOVA}/servers/{server_id}"
            shown = (await world.ask("GET", address, token=token)).json()["server"]
            assert (shown["status"], shown["OS-EXT-STS:vm_state"]) == ("VERIFY_RESIZE", "resized")
            listed = (await world.ask("GET", f"{NOVA}/servers?status=VERIFY_RESIZE", token=token)).json()["servers"]
            assert [one["id"] for one in listed] == [server_id]
            assert (await act(world, token, server_id, {"os-stop": None})).status_code == 409
            assert (await act(world, token, server_id, {action: None})).status_code == code
            assert (await world.ask("GET", address, token=token)).json()["server"]["status"] == status
