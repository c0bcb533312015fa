"""What this machine or cluster can do: `amn doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from amn_dist.commands.options import Address
from amn_dist.commands.printing import plain_console, print_table
from amn_dist.errors import PLACE, printable
from amn_dist.storage.paths import path_of

RunsFolder = Annotated[
    Any,
    typer.Option("--run", parser=path_of, metavar="FOLDER|URL", help="Folder for runs, to be seen by every node."),
]


def doctor(
    cluster: Annotated[bool, typer.Option("--cluster", help="Ask every node of a Ray cluster too.")] = False,
    address: Address = None,
    run: RunsFolder = Path("runs"),
    trial: Annotated[bool, typer.Option("--try", help="Run every stage over a few drawn scenes; a minute.")] = False,
) -> None:
    """Say what this machine (or cluster) can do, which versions it has, and what is missing."""
    from amn_dist.commands.doctor.machine import examine

    checks = examine()
    if cluster or address is not None:
        from amn_dist.commands.doctor.cluster import examine_cluster

        checks += examine_cluster(address, run)
    if trial:
        from amn_dist.commands.doctor.trial import try_out

        checks.append(try_out())
    table = Table(box=None)
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading)
    for check in checks:
        state = "ok" if check.ok else "MISSING" if check.needed else "note"
        table.add_row(state, *(printable(text, PLACE) for text in (check.name, check.found, check.advice)))
    print_table(plain_console(), table)
    raise typer.Exit(0 if all(check.ok or not check.needed for check in checks) else 1)
