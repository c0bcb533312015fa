"""Samples as one picture: `amn show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amn_dist.commands.options import MovedData
from amn_dist.commands.printing import print_line
from amn_dist.storage.paths import path_of

SHOWN = 4
"""Samples of each set where none is named."""

SetOrRun = Annotated[Any, typer.Argument(parser=path_of, metavar="DIR|URL|RUN", help="A shard set or a run.")]
Keys = Annotated[list[str] | None, typer.Argument(metavar="KEY...", help="Samples; a few of each set without.")]


def show(
    place: SetOrRun,
    keys: Keys = None,
    out: Annotated[Path, typer.Option("--out", help="Picture to write.")] = Path("show.png"),
    data: MovedData = None,
) -> None:
    """Draw samples through the stages as one picture."""
    from amn_dist.report.contact_sheet import (
        contact_sheet,
        even_samples,
        open_image_columns,
        samples_by_key,
        write_picture,
    )

    sets, missing = open_image_columns(place, data=data)
    for text in missing:
        print_line(f"note: {text}", err=True)
    picture = contact_sheet(samples_by_key(sets, keys) if keys else even_samples(sets, SHOWN))
    write_picture(picture, out)
    print_line(f"{out} ({picture.width}x{picture.height})")
