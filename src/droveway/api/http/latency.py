"""How long requests took, counted in a bounded number of series: by service and method, whatever the path was.

A time ends when the reply begins: what is then sent, and how fast the client takes it, is not the API's doing.
"""

from __future__ import annotations

from bisect import bisect_left

EDGES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper; one more bucket takes the rest
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
OTHER = "other"  # what no client of ours sends: any text may be a method


class LatencyCounts:
    """Of one service and one method. `counts` are not cumulated."""

    __slots__ = ("codes", "counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(EDGES_S) + 1)
        self.codes: dict[str, int] = {}  # by class: 2xx, 4xx, …
        self.sum_s = 0.0


class Latency:
    """Since the process began."""

    def __init__(self) -> None:
        self.times: dict[tuple[str, str], LatencyCounts] = {}

    def record(self, service: str, method: str, status: int, took_s: float) -> None:
        """`service` is one of those of the catalog, or what stands for all other paths."""
        key = service, method if method in METHODS else OTHER
        times = self.times.get(key)
        if times is None:
            times = self.times[key] = LatencyCounts()
        times.counts[bisect_left(EDGES_S, took_s)] += 1
        times.sum_s += took_s
        code = f"{status // 100}xx"
        times.codes[code] = times.codes.get(code, 0) + 1
