"""What commands print: lines and tables, safe for a terminal whatever names they hold."""

from __future__ import annotations

import typer
from rich.console import Console

from amn_dist.errors import MESSAGE, printable


def print_line(text: object, *, err: bool = False) -> None:
    """Print one line, to standard error on request."""
    typer.echo(printable(text, MESSAGE), err=err)


def plain_console() -> Console:
    """A console that prints what it is given: brackets and colons in a name are no markup."""
    return Console(markup=False, emoji=False)
