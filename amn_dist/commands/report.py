"""Runs as one page: `amn report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amn_dist.commands.options import MovedData
from amn_dist.commands.printing import print_line
from amn_dist.storage.paths import path_of

ReportedRuns = Annotated[
    list[Any], typer.Argument(parser=path_of, metavar="RUN|URL...", help="Runs to be shown side by side.")
]


def report(
    runs: ReportedRuns,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    images: Annotated[int, typer.Option(help="Most images the gallery shows.", min=0, max=1_000_000)] = 200,
    data: MovedData = None,
) -> None:
    """Write one self-contained HTML file: scores, thresholds, losses, times, images through all stages."""
    from amn_dist.report.page import write_report

    size = write_report(runs, out, images=images, data=data)
    print_line(f"{out} ({size / 2**20:.1f} MiB)")
