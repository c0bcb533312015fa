"""What commands print: lines and tables, safe for a terminal whatever names they hold."""

from __future__ import annotations

import os

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from amn_dist.errors import MESSAGE, printable

UNBOUND = 2000
"""Characters of a line that nothing bounds."""
LONG_WORD = 40
"""Characters of a word that may be folded: a path, an address."""


def print_line(text: object, *, err: bool = False) -> None:
    """Print one line, to standard error on request."""
    typer.echo(printable(text, MESSAGE), err=err)


def print_table(console: Console, table: Table) -> None:
    """Print a table whose headings and words stay whole: as wide as it is where nobody says how wide a line may be (in
    a pipe, without COLUMNS), else closer together, and beyond the line rather than cut. Paths are folded."""
    for column in table.columns:
        column.min_width, column.overflow = min(max(map(len, _words(column)), default=1), LONG_WORD), "fold"
    unbound = console.options.update(max_width=UNBOUND)
    width = Measurement.get(console, unbound, table).maximum
    if width > console.width and (console.is_terminal or "COLUMNS" in os.environ):
        table.box, table.padding, table.show_edge = SIMPLE_HEAD, (0, 0, 0, 0), False
        least = sum(column.min_width or 1 for column in table.columns) + len(table.columns) - 1
        width = min(Measurement.get(console, unbound, table).maximum, max(console.width, least))
    table.width = width  # print() itself knows no width beyond the console's
    console.print(table, crop=False)


def _words(column: Column) -> list[str]:
    """The words of a column's heading and cells."""
    return " ".join(str(cell) for cell in (column.header, *column.cells)).split()


def plain_console() -> Console:
    """A console that prints what it is given: brackets and colons in a name are no markup."""
    return Console(markup=False, emoji=False)
