"""The APIs, each call by itself: CPU of the program, beside Keystone and Nova as measured on the same kind of machine.

Its rows stand in files by subject: each has `measure(cloud)`, and its line below.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.api_rows import identity
from benchmarks.api_rows.control_alone import control_alone
from benchmarks.claims import Claim

NEEDS = ()
SUBJECTS = (identity,)


def measure() -> Iterator[Claim]:
    with control_alone() as cloud:
        for subject in SUBJECTS:
            yield from subject.measure(cloud)
