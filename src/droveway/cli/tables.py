"""How the operator's commands print: plain tables, times in UTC."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from droveway.cli.columns import GAP, one_line, when

__all__ = ["show", "when"]

LAST_WIDTH_MIN = 40  # a narrower column is hard to read
COLUMN_WIDTH_MIN = 8
INDENT = "    "

Row = Sequence[str]


def show(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table. Where its last column would be narrow and has much to say, that stands beneath each row."""
    console = Console(width=None if Console().is_terminal else 200, highlight=False, markup=False)
    cells = [tuple(map(str, row)) for row in rows]
    if is_tight(columns, cells, console.width):
        head, *lines = stacked(columns, cells, console.width)
        click.echo("\n".join([click.style(head, bold=True), *lines]))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def is_tight(columns: Row, rows: Sequence[Row], width: int) -> bool:
    left = width - sum(each + len(GAP) for each in _widths(columns, rows))
    return left < LAST_WIDTH_MIN and any(len(row[-1]) > left for row in rows)


def stacked(columns: Row, rows: Sequence[Row], width: int) -> list[str]:
    """The heading and each row as a text of lines of at most that width: the columns but the last, and under them what
    the last has to say."""
    widths = _widths(columns, rows)
    over = sum(widths) + len(GAP) * (len(widths) - 1) - width
    if over > 0:
        widest = widths.index(max(widths))
        widths[widest] = max(COLUMN_WIDTH_MIN, widths[widest] - over)
    return ["\n".join(_lines(row, widths, width)) for row in (columns, *rows)]


def _lines(row: Row, widths: Sequence[int], width: int) -> Iterator[str]:
    parts = [textwrap.wrap(one_line(cell), most) for cell, most in zip(row, widths, strict=False)]
    for line in zip_longest(*parts, fillvalue=""):
        yield GAP.join(f"{text:<{most}}" for text, most in zip(line, widths, strict=True)).rstrip()
    for text in row[-1].splitlines():
        if text != "-":
            yield from textwrap.wrap(
                one_line(text), width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
            )


def _widths(columns: Row, rows: Sequence[Row]) -> list[int]:
    return [max(map(len, cells)) for cells in list(zip(columns, *rows, strict=True))[:-1]]
