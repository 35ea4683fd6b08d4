"""What would be decided now, and whether what was decided once would be decided so again. Nothing is claimed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from droveway.control.scheduling import requests
from droveway.control.scheduling.placer import Placer
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.hardware import claimed_disk_gb
from droveway.domain.model import SagaKind, of_instance
from droveway.domain.placement import PlacementRequest
from droveway.ports.control import DryRunRequest, DryRunResult, HostCount, Replay
from droveway.scheduler import decisions, hardware, image_properties
from droveway.scheduler.decisions import StoredDecision
from droveway.store.compute import placements, server_locations
from droveway.store.engine import lookup
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import hosts
from droveway.store.rows import PlacementRow
from droveway.store.work import sagas

COUNT_MAX = 50  # guests in one dry run: all of them are placed between two looks at the loop


class DryRun:
    def __init__(self, store: Store, placer: Placer) -> None:
        self._store, self._placer = store, placer

    async def attempt(self, given: DryRunRequest) -> DryRunResult:
        """Raises NotFound, Conflict, BadRequest."""
        if not 0 < given.count <= COUNT_MAX:
            raise BadRequest(f"count must be a number from 1 to {COUNT_MAX}.")
        if bool(given.flavor) == bool(given.server):
            raise BadRequest("Name a flavor, or a server whose request is to be tried again; one of the two.")
        beside = [name for name in ("image", "zone", "host", "group", "properties") if getattr(given, name)]
        if given.server and beside:
            raise BadRequest(f"A server's request is tried again as it was: leave out {', '.join(beside)}.")
        ask, seed = await self._store.read(_ask, given)
        await self._placer.refresh()
        settings = self._placer.settings
        found = [
            self._as_plain(StoredDecision(ask, plan, settings, kind="try"))
            for plan in self._placer.plans([ask] * given.count, seed)
        ]
        spread = Counter(one["host"] for one in found if one["host"] is not None)
        return DryRunResult(found, [HostCount(name, many) for name, many in spread.most_common()])

    def _as_plain(self, decision: StoredDecision) -> dict[str, Any]:
        ranked = decision.plan.ranked
        return decisions.as_plain(decision, ranked[0].name if ranked else None)

    async def replay(self, server: str) -> Replay:
        """Its newest decision, with the recorded request, seed and settings, against the present hosts. Raises
        NotFound, Conflict."""
        row, then, names = await self._store.read(_recorded, server)
        await self._placer.refresh()
        seen = decisions.kept(row["body"])
        plan = self._placer.plan(seen.ask, seen.plan.seed, seen.settings)
        now = msgspec.structs.replace(seen, plan=plan, races=())
        return Replay(
            then,
            decisions.as_plain(seen, row["host"]) | {"at_us": row["at_us"]},
            self._as_plain(now),
            decisions.differences(seen.plan, plan, names),
        )


def _recorded(tx: Tx, server: str) -> tuple[PlacementRow, dict[str, Any], dict[int, str]]:
    instance = lookup.server(tx, server)
    found = placements.of_instance(tx, instance["id"], 1)
    if not found:
        raise NotFound(f"No decision about server {instance['name']} is kept: it has not been placed yet, or long ago.")
    as_plain = {"id": instance["id"], "name": instance["name"], "host": instance["host"]}
    return found[0], as_plain, server_locations.host_names_by_number(tx)


def _ask(tx: Tx, given: DryRunRequest) -> tuple[PlacementRequest, int]:
    seed = int(tx.names.uuid()[:8], 16)
    if given.server is not None:
        instance = lookup.server(tx, given.server)
        boot = sagas.last_of(tx, of_instance(instance["id"]), SagaKind.BOOT)
        params = {} if boot is None else boot["params"]
        return requests.to_boot(tx, instance, {"requested_host": params.get("requested_host")}), seed
    if given.host is not None:
        hosts.get(tx, given.host)
    if given.zone is not None:
        zones = server_locations.zones_of_hosts(tx)
        if given.zone not in zones:
            raise NotFound(f"There is no zone {given.zone[:64]!r}; there is {', '.join(zones[:8]) or 'no host yet'}.")
    flavor = lookup.flavor(tx, given.flavor)
    image = None if given.image is None else lookup.image(tx, given.image)
    group = None if given.group is None else lookup.server_group(tx, given.group)
    properties = ({} if image is None else image["properties"]) | given.properties
    reason = hardware.refusal(flavor["extra_specs"], properties, flavor["vcpus"])
    if reason is not None:
        raise BadRequest(reason)
    virtual_bytes = 0 if image is None else image["virtual_size_bytes"] or 0
    user_request = requests.UserRequest(
        project_id="" if group is None else group["project_id"],
        flavor={**flavor},
        disk_gb=claimed_disk_gb(flavor["disk_gb"], flavor["ephemeral_gb"], flavor["swap_mb"], virtual_bytes),
        zone=given.zone,
        host=given.host,
        group_id=None if group is None else group["id"],
        properties=image_properties.kept(properties),
    )
    return requests.ask_of(tx, user_request), seed
