"""Masks, maps and weights for other code: `amn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from amn_dist.commands.lines import say
from amn_dist.commands.options import RunPath

exports = typer.Typer(help="Hand masks, maps and weights to other code.", no_args_is_help=True)

Place = Annotated[str, typer.Argument(metavar="RUN|SHARDSET", help="A run, or a shard set.")]
StageOption = Annotated[str | None, typer.Option("--stage", help="Of a run: the stage that made them.")]


Format = Literal["voc", "coco"]


@exports.command("masks")
def export_masks(
    place: Place,
    out: Annotated[Path, typer.Option("--out", help="Folder of PNGs, or the COCO file.")],
    format: Annotated[Format, typer.Option(help="voc: palette PNGs, 255 kept. coco: one JSON of run lengths.")] = "voc",
    stage: StageOption = None,
    field: Annotated[str | None, typer.Option(help="Field of the set, such as raw.png.")] = None,
) -> None:
    """Labels; of a run, without --stage, those its segmentation network learns from."""
    from amn_dist.interchange.artefacts import masks_of
    from amn_dist.interchange.coco import export_coco
    from amn_dist.interchange.masks import export_masks

    found = masks_of(place, stage=stage, field=field)
    if format == "coco":
        say(f"{out}: {export_coco(found, out)} regions in {len(found.made)} images")
    else:
        say(f"{out}: {export_masks(found, out)} masks ({found.made.kind}, {found.field})")


@exports.command("maps")
def export_maps(
    place: Place,
    out: Annotated[Path, typer.Option("--out", help="Folder to write KEY.npy to.")],
    stage: StageOption = None,
    images: Annotated[str | None, typer.Option("--images", help="Image set a lone shard set lies over.")] = None,
    fine: Annotated[bool, typer.Option("--fine/--no-fine", help="With maps of the image's size.")] = True,
) -> None:
    """Activation maps as the dictionaries published code reads; of a run, without --stage, those of its first map."""
    from amn_dist.interchange.artefacts import maps_of
    from amn_dist.interchange.maps import export_maps

    found = maps_of(place, stage=stage, images=images)
    say(f"{out}: maps of {export_maps(found, out, fine=fine)} images ({found.made.kind})")


@exports.command("weights")
def export_weights(
    run: RunPath,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A learned stage.")],
    out: Annotated[Path, typer.Option("--out", help="FILE.pth or FILE.safetensors")],
) -> None:
    """Weights of a learned stage, under published names where its network is a published one."""
    from amn_dist.interchange.weights import export_weights
    from amn_dist.runs.pipeline import reopen

    published = export_weights(reopen(run), stage, out)
    say(f"{out}: {stage} under {'published' if published else 'our own'} names")
