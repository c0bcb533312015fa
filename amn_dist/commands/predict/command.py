"""New photographs: `amn predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amn_dist.commands.options import MovedData, Out, RunPath
from amn_dist.commands.printing import print_line

Photographs = Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER...", help="Photographs, folders of them.")]


def predict(run: RunPath, images: Photographs, out: Out = Path("predictions"), data: MovedData = None) -> None:
    """Segment photographs of any size with the network of a finished run: masks and overlays."""
    from amn_dist.commands.predict.photographs import predict_files

    unread = 0
    for photograph in predict_files(run, images, out, data=data):
        if photograph.note:
            print_line(f"{'note' if photograph.mask else 'error'}: {photograph.note}", err=True)
        if photograph.mask is not None:
            print_line(photograph.mask)
        unread += photograph.mask is None
    raise typer.Exit(1 if unread else 0)
