"""Columns of plain text: a list of ten thousand lines is written in the time that a drawn table takes for a hundred."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import click

GAP = "  "


def write(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The heading, then a line a row, each column as wide as its widest cell."""
    table = [columns, *(tuple(one_line(cell) for cell in row) for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    form = GAP.join(f"{{:<{width}}}" for width in widths[:-1]) + GAP + "{}"
    lines = [form.format(*row) for row in table]
    click.echo("\n".join([click.style(lines[0], bold=True), *lines[1:]]))


def one_line(text: str) -> str:
    """What would move the cursor or colour the screen is shown, not done."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def when(us: int | None) -> str:
    """Seconds, UTC, as every OpenStack table writes it."""
    return "-" if us is None else _when(us // 1_000_000)


@lru_cache(4096)
def _when(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(" ")[:19]
