"""`/os-instance_usage_audit_log`: which hosts have sent out what their servers used in the last whole month. Nothing is
sent out here, so it says of every host that it has not.

GET /os-instance_usage_audit_log           of the month before this one
GET /os-instance_usage_audit_log/{before}  of the month before that time: 2026-11-30 12:00:00
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from droveway.api.compute.os_services import shown_by
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain import service_kinds
from droveway.domain.faults import BadRequest
from droveway.domain.service_kinds import ListedBy
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services

_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f")


async def listing(api: Api, request: Request) -> Response:
    request.known_query(())
    now = datetime.fromtimestamp(api.clock.now_us() / 1_000_000, UTC)
    return Response(200, {"instance_usage_audit_logs": await _of_month_before(api, now)})


async def show(api: Api, request: Request) -> Response:
    request.known_query(())
    return Response(200, {"instance_usage_audit_log": await _of_month_before(api, _time(request.params["before"]))})


def _time(text: str) -> datetime:
    for form in _FORMS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise BadRequest(f"Invalid timestamp for date {text[:64]}: it is written like 2026-11-30 12:00:00.")


def month_before(when: datetime) -> tuple[datetime, datetime]:
    """The last whole month that has ended before: its beginning, and its end."""
    end = when.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if end >= when:
        end = _a_month_less(end)
    return _a_month_less(end), end


def _a_month_less(first: datetime) -> datetime:
    if first.month == 1:
        if first.year == 1:
            raise BadRequest("There is no month before that time.")
        return first.replace(year=first.year - 1, month=12)
    return first.replace(month=first.month - 1)


async def _of_month_before(api: Api, when: datetime) -> dict[str, Any]:
    begin, end = month_before(when)

    def read(tx: Tx) -> list[str]:
        found = shown_by(ListedBy.COMPUTE, services.list_all(tx, None, service_kinds.COMPUTE))
        return sorted({row["host"] for row in found})

    hosts = await api.store.read(read)
    return {
        "period_beginning": f"{begin:%Y-%m-%d %H:%M:%S}",
        "period_ending": f"{end:%Y-%m-%d %H:%M:%S}",
        "num_hosts": len(hosts),
        "num_hosts_done": 0,
        "num_hosts_running": 0,
        "num_hosts_not_run": len(hosts),
        "hosts_not_run": hosts,
        "total_instances": 0,
        "total_errors": 0,
        "overall_status": f"0 of {len(hosts)} hosts done. 0 errors." if hosts else "ALL hosts done. 0 errors.",
        "log": {},
    }
