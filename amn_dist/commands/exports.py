"""Masks, maps and weights for other code: `amn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from amn_dist.commands.options import RunPath
from amn_dist.commands.printing import print_line

exports = typer.Typer(help="Hand masks, maps and weights to other code.", no_args_is_help=True)

RunOrSet = Annotated[str, typer.Argument(metavar="RUN|SHARDSET", help="A run, or a shard set.")]
StageOption = Annotated[str | None, typer.Option("--stage", help="Of a run: the stage that made them.")]
MaskFormat = Literal["voc", "coco"]


@exports.command("masks")
def export_masks(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="Folder of PNGs, or the COCO file.")],
    format: Annotated[
        MaskFormat, typer.Option(help="voc: palette PNGs, 255 kept. coco: one JSON of run lengths.")
    ] = "voc",
    stage: StageOption = None,
    field: Annotated[str | None, typer.Option(help="Field of the set, such as raw.png.")] = None,
) -> None:
    """Labels; of a run, without --stage, those its segmentation network learns from."""
    from amn_dist.interchange.coco import export_coco
    from amn_dist.interchange.masks import export_masks
    from amn_dist.interchange.selection import select_masks

    selected = select_masks(place, stage=stage, field=field)
    if format == "coco":
        print_line(f"{out}: {export_coco(selected, out)} regions in {len(selected.shards)} images")
    else:
        print_line(f"{out}: {export_masks(selected, out)} masks ({selected.shards.kind}, {selected.field})")


@exports.command("maps")
def export_maps(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="Folder to write KEY.npy to.")],
    stage: StageOption = None,
    images: Annotated[str | None, typer.Option("--images", help="Image set a lone shard set lies over.")] = None,
    fine: Annotated[bool, typer.Option("--fine/--no-fine", help="With maps of the image's size.")] = True,
) -> None:
    """Activation maps as the dictionaries published code reads; of a run, without --stage, those of its first map."""
    from amn_dist.interchange.maps import export_maps
    from amn_dist.interchange.selection import select_maps

    selected = select_maps(place, stage=stage, images=images)
    print_line(f"{out}: maps of {export_maps(selected, out, fine=fine)} images ({selected.shards.kind})")


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
    print_line(f"{out}: {stage} under {'published' if published else 'our own'} names")
