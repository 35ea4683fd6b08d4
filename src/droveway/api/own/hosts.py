"""Hosts as an operator wants to see them: what they have, what is promised and used, and whether they can be used.

GET /droveway/v1/hosts          {"hosts": [...]}: each with `usable`, and why not in a word and in sentences
GET /droveway/v1/hosts/{host}   {"host": {...}}: everything, with its guests and what has happened to it
DELETE /droveway/v1/hosts/{host}       it is forgotten; 200 {"host": {"name", "services"}}; it is down and holds nothing
POST /droveway/v1/hosts/{host}/declare-gone {"because": "..."}: it will not come back by itself; 200 {"host": {...}}
POST /droveway/v1/hosts/{host}/readmit      its agent is let in again; 200 {"host": {...}}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from droveway.api.http import bodies
from droveway.api.http.kinds import NAME
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.wiring import Api
from droveway.domain.model import of_host
from droveway.domain.placement import HostFacts, PlacementSettings
from droveway.domain.resources import LastReport, same_hypervisor, unusable
from droveway.scheduler.capacity import capacities, ratios_of
from droveway.store.compute import instances, server_locations
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import aggregates, certificates, declared, host_reports, hosts, services
from droveway.store.rows import InstanceRow
from droveway.store.work import events

COMPUTE = hosts.COMPUTE
EVENTS_SHOWN, NAMES_SHOWN = 20, 16
KINDS = ("host", "alarm", "warning")
Body = dict[str, Any]


async def listing(api: Api, request: Request) -> Response:
    request.known_query(())

    def read(tx: Tx) -> bytes:
        by_name = sorted(hosts.facts_of_all(tx), key=lambda facts: facts.name)
        alike = _alike(by_name)
        late = certificates.late(tx)
        lines = (
            _line(
                one,
                api.settings.placement,
                alike=alike.get(one.hypervisor_hostname, ()),
                certificate=late.get(one.name, ""),
            )
            for one in by_name
        )
        return encode({"hosts": encode_each(lines)})

    return Response(200, await api.store.read(read))


def _alike(found: list[HostFacts]) -> dict[str, list[str]]:
    """The hypervisors' names that more than one host says, with those hosts. Nothing is made for all the others."""
    count = Counter(facts.hypervisor_hostname for facts in found)
    alike = {name: list[str]() for name, times in count.items() if times > 1}
    for facts in found:
        if facts.hypervisor_hostname in alike:
            alike[facts.hypervisor_hostname].append(facts.name)
    return alike


def _line(
    facts: HostFacts,
    settings: PlacementSettings,
    hypervisor_reason: str = "",
    *,
    alike: Sequence[str],
    certificate: str = "",
) -> Body:
    """`alike`: the hosts whose hypervisors have the name of its own, itself among them."""
    most = capacities(facts, ratios_of(settings))
    why_not = unusable(facts, most, hypervisor_reason)
    return {
        "id": facts.uuid,
        "name": facts.name,
        "zone": facts.zone,
        "state": "up" if facts.is_up else "down",
        "status": "disabled" if facts.disabled else "enabled",
        "usable": not why_not,
        "word": why_not[0].word if why_not else "",
        "why_not": [one.reason for one in why_not],
        "vcpus": _amount(facts.vcpus, most[1], facts.vcpus_used),
        "memory_mb": _amount(facts.memory_mb, most[0], facts.ram_mb_used),
        "disk_gb": _amount(facts.disk_gb, most[2], facts.disk_gb_used),
        "guests": facts.instances,
        "hypervisor_type": facts.hypervisor_type,
        "hypervisor_version": facts.hypervisor_version,
        "hypervisor_hostname": facts.hypervisor_hostname,
        "warning": "; ".join(filter(None, (_warning(facts, alike), certificate))),
    }


def _warning(facts: HostFacts, alike: Sequence[str]) -> str:
    if not facts.hypervisor_hostname:
        return ""
    return same_hypervisor(facts.hypervisor_hostname, [name for name in alike if name != facts.name])


def _amount(has: int, most: int, promised: int) -> Body:
    """`most`: what may be promised by the ratios and reserves."""
    return {"has": has, "most": most, "promised": promised}


# -- one --------------------------------------------------------------------------------------------------------------
async def show(api: Api, request: Request) -> Response:
    request.known_query(())
    name = request.params["host"]
    last_report = (await api.last_reports((name,))).get(name)
    return Response(200, {"host": await api.store.read(_show, name, last_report, api.settings.placement)})


class DeclaredGone(bodies.Body, frozen=True):
    because: Annotated[str, NAME]


@bodies.takes(DeclaredGone)
async def declare_gone(api: Api, request: Request, given: DeclaredGone) -> Response:
    await api.store.run(declared.declare_gone, request.params["host"], given.because)
    return await show(api, request)


async def readmit(api: Api, request: Request) -> Response:
    await api.store.run(declared.readmit, request.params["host"])
    return await show(api, request)


async def remove(api: Api, request: Request) -> Response:
    name = request.params["host"]
    binaries = await api.store.run(services.remove_host, name)
    return Response(200, {"host": {"name": name, "services": binaries}})


def _show(tx: Tx, name: str, last_report: LastReport | None, settings: PlacementSettings) -> Body:
    row, facts = hosts.get(tx, name), hosts.facts(tx, name)
    (service,) = services.list_all(tx, name, COMPUTE)
    guests = instances.on_hosts(tx, (name,))
    resources: Body = row["resources"] or {}
    return {
        **_line(
            facts,
            settings,
            row["reason"],
            alike=host_reports.who_say(tx, "hypervisor_hostname", facts.hypervisor_hostname, NAMES_SHOWN),
            certificate=certificates.late(tx, name).get(name, ""),
        ),
        "declared": {
            "word": declared.word_of(row["declared"]),
            "because": row["declared_because"],
            "at_us": row["declared_at_us"],
        },
        "service": {key: service[key] for key in ("state", "since_us", "reason", "forced_down", "disabled_reason")},
        "report": {
            "generation": row["generation"],
            "changed_at_us": row["reported_at_us"],
            "heard_at_us": row["reported_at_us"] if last_report is None else last_report.at_us,
            "hypervisor_up": row["hypervisor_up"],
            "reason": row["reason"],
            "refused": row["refused"],
            "protocol": row["protocol"],
        },
        "resources": resources,
        "measured": None if last_report is None else msgspec.to_builtins(last_report.measured),
        "cells": _cells(facts, guests),
        "aggregates": [one["name"] for one in aggregates.list_all(tx) if name in one["hosts"]],
        "servers": [_guest(one, last_report) for one in guests],
        "strangers": _strangers(tx, name, guests, last_report),
        "names": _names(tx, name, resources.get("host_uuid", "")),
        "events": [
            {"at_us": one["at_us"], "kind": one["kind"], "reason": one["body"].get("reason", "")}
            for one in events.of_subject(tx, of_host(name))
            if one["kind"] in KINDS
        ][-EVENTS_SHOWN:],
    }


def _cells(facts: HostFacts, guests: list[InstanceRow]) -> list[Body]:
    """Each NUMA cell, and who holds what of it."""
    held = [(guest["id"], cell) for guest in guests for cell in instances.cells_of(guest)]
    return [
        {
            "id": cell.id,
            "cpus": list(cell.cpus),
            "memory_mb": cell.memory_mb,
            "memory_mb_held": sum(one.memory_mb for one in facts.held_cells if one.cell == cell.id),
            "pinned_cpus": sorted(cpu for one in facts.held_cells if one.cell == cell.id for cpu in one.cpus),
            "servers": [
                {"id": server_id, "vcpus": one.vcpus, "memory_mb": one.memory_mb, "cpus": list(one.cpus)}
                for server_id, one in held
                if one.cell == cell.id
            ],
        }
        for cell in facts.cells
    ]


def _guest(row: InstanceRow, last_report: LastReport | None) -> Body:
    """`use` is what the host measured; None when the guest did not run then."""
    measured = () if last_report is None or last_report.measured is None else last_report.measured.guests
    use = next((one for one in measured if one.instance_id == row["id"]), None)
    return {
        "id": row["id"],
        "name": row["name"],
        "instance_name": server_locations.instance_name(row["number"]),
        "state": row["vm_state"],
        "vcpus": row["vcpus"],
        "memory_mb": row["ram_mb"],
        "disk_gb": row["disk_gb"],
        "use": None
        if use is None
        else {"cpu_time_ms": use.cpu_time_ms, "memory_mb": use.memory_mb, "disk_mb": use.disk_mb},
    }


def _strangers(tx: Tx, name: str, guests: list[InstanceRow], last_report: LastReport | None) -> list[Body]:
    """What ran there at the last full report although its place is elsewhere, or nowhere."""
    placed = {guest["id"] for guest in guests}
    measured = () if last_report is None or last_report.measured is None else last_report.measured.guests
    ids = [one.instance_id for one in measured if one.instance_id not in placed]
    known = instances.by_ids(tx, ids)
    return [
        {
            "id": instance_id,
            "name": known[instance_id]["name"] if instance_id in known else "",
            "place": known[instance_id]["host"] if instance_id in known else None,
        }
        for instance_id in ids
    ]


def _names(tx: Tx, name: str, host_uuid: str) -> list[Body]:
    """Other names under which that machine has reported."""
    found = []
    for other in host_reports.who_say(tx, "host_uuid", host_uuid, NAMES_SHOWN):
        if other != name:
            row = hosts.get(tx, other)
            is_up = bool(row["is_up"] and not row["forced_down"])
            found.append({"name": other, "state": "up" if is_up else "down", "servers": int(row["running_vms"])})
    return found
