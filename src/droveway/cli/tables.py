"""How the operator's commands print: plain tables, times in UTC."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from droveway.cli.columns import when

__all__ = ["show", "when"]


def show(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=None if Console().is_terminal else 200, highlight=False, markup=False).print(table)
