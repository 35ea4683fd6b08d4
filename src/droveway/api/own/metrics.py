"""GET /metrics, in the text that Prometheus reads. Nobody needs a token, so it tells numbers, and no names but those of
hosts and periodic tasks; projects are told together, or, where the configuration says so, by their ids. docs/metrics.md
lists them, which a test compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from droveway.api.http.request import Request, Response
from droveway.api.own import store_metrics
from droveway.api.wiring import Api
from droveway.domain.liveness import State
from droveway.domain.metrics import LATENESS_BUCKETS_MS, LivenessMetrics, TaskMetrics
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services, totals
from droveway.store.work import saga_ages

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
TASKS_MAX = 1000  # in one answer


async def show(api: Api, request: Request) -> Response:
    """Written where the store is read, beside the loop."""
    measured = await api.control.liveness_metrics()

    def read(tx: Tx) -> bytes:
        # Only now, because a control that is not scraped should not carry the library.
        from prometheus_client.exposition import generate_latest

        return generate_latest(_Collector(measured, services.count_by_state(tx), _of_store(tx, api)))

    return Response(200, body=await api.store.read(read), headers=[(b"content-type", CONTENT_TYPE)])


def _of_store(tx: Tx, api: Api) -> list[Metric]:
    held = totals.totals(tx)
    return [
        store_metrics.build(),
        *store_metrics.of_requests(api.latency),
        *store_metrics.of_hosts(held),
        *store_metrics.of_projects(held, each=api.settings.metrics_by_project),
        *store_metrics.of_sagas(saga_ages.count(tx)),
    ]


def _each_state(counts: Mapping[str, int]) -> dict[str, int]:
    """Those with the value 0 as well: a series that appears late hides its first rise."""
    return {**{state.value: 0 for state in State}, **counts}


class _Collector:
    """All that the library asks of a registry."""

    def __init__(self, measured: LivenessMetrics, states: dict[str, int], others: list[Metric]) -> None:
        self._measured, self._others = measured, others
        self._states = _each_state(states)

    def collect(self) -> Iterator[Metric]:
        yield from _of_beats(self._measured)
        yield from _of_verdicts(self._measured, self._states)
        yield _gauge(
            "droveway_loop_lag_seconds", "How late the loop of control was woken, last.", self._measured.loop_lag_s
        )
        yield _gauge(
            "droveway_loop_lag_seconds_max",
            "How late the loop of control was woken, at worst.",
            self._measured.loop_lag_max_s,
        )
        yield from _of_tasks(self._measured.tasks[:TASKS_MAX])
        yield from self._others


def _counter(name: str, says: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, says, value=value)


def _gauge(name: str, says: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, says, value=value)


def _of_beats(measured: LivenessMetrics) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    yield _counter("droveway_beats", "Beats that were accepted.", measured.beats_total)
    yield _counter(
        "droveway_beats_refused",
        "Beats that were replayed, reordered, of an older boot or garbage.",
        measured.beats_refused_total,
    )
    edges = [*(str(edge_ms / 1000) for edge_ms in LATENESS_BUCKETS_MS), "+Inf"]
    yield HistogramMetricFamily(
        "droveway_beat_lateness_seconds",
        "By how much the loop of a service was late at worst between two beats.",
        buckets=list(zip(edges, accumulate(measured.lateness_counts), strict=True)),
        sum_value=measured.lateness_sum_ms / 1000,
    )


def _of_verdicts(measured: LivenessMetrics, states: dict[str, int]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    now = GaugeMetricFamily("droveway_services", "Services in each state.", labels=["state"])
    for state, count in states.items():
        now.add_metric([state], count)
    yield now
    became = CounterMetricFamily(
        "droveway_service_transitions", "Verdicts that changed, by what they became.", labels=["became"]
    )
    for state, count in _each_state(measured.transitions).items():
        became.add_metric([state], count)
    yield became
    yield _counter(
        "droveway_service_flaps", "Services that came back soon after they had gone down.", measured.flaps_total
    )
    yield _counter(
        "droveway_holds",
        "Times that the judge concluded nothing because too many fell silent at once.",
        measured.holds_total,
    )


_OF_TASK = (
    ("runs", "Runs of a periodic task."),
    ("errors", "Runs that failed."),
    ("overruns", "Turns that were left out because the run before took too long."),
    ("timeouts", "Runs that were ended at their deadline."),
)


def _of_tasks(tasks: tuple[TaskMetrics, ...]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, says in _OF_TASK:
        counted = CounterMetricFamily(f"droveway_task_{name}", says, labels=["host", "service", "task"])
        for task in tasks:
            counted.add_metric([task.host, task.service, task.name], getattr(task, name))
        yield counted
    took = GaugeMetricFamily(
        "droveway_task_last_duration_seconds", "How long the last run took.", labels=["host", "service", "task"]
    )
    for task in tasks:
        took.add_metric([task.host, task.service, task.name], task.last_duration_s)
    yield took
