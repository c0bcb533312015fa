"""Data sets into shards: `amn pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amn_dist.commands.options import Out, ShardSize, SkipBad

pack = typer.Typer(help="Turn a data set into shards.", no_args_is_help=True)


@pack.command("voc")
def pack_voc(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="VOC devkit layout.")],
    out: Out,
    split: Annotated[str, typer.Option(help="ImageSets/Segmentation/SPLIT.txt")] = "train",
    difficult: Annotated[bool, typer.Option("--difficult/--no-difficult", help="Count difficult objects.")] = True,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
) -> None:
    """VOC layout: photos, tags from the XML files, masks as truth where there are any."""
    from data_shards import voc

    packed(voc.pack_voc(root, split=split, out=out, difficult=difficult, shard_size=shard_size, skip_bad=skip_bad), out)


@pack.command("folder")
def pack_folder(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with images anywhere below.")],
    labels: Annotated[Path, typer.Option(help="CSV (file,labels) or JSON lines.")],
    out: Out,
    classes: Annotated[Path | None, typer.Option(help="Class names, one a line, background first.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of truth masks, STEM.png.")] = None,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
) -> None:
    """Images in a folder with a table of labels."""
    from data_shards import folder

    index = folder.pack_folder(
        root, labels=labels, out=out, classes=classes, masks=masks, shard_size=shard_size, skip_bad=skip_bad
    )
    packed(index, out)


@pack.command("synthetic")
def pack_synthetic(
    out: Out,
    images: Annotated[int, typer.Option(help="Scenes to draw.", min=1)] = 320,
    seed: Annotated[int, typer.Option(help="Which scenes.")] = 0,
    shard_size: ShardSize = None,
) -> None:
    """Drawn scenes with exact masks."""
    from data_shards import synthetic

    packed(synthetic.pack_synthetic(out, images=images, seed=seed, shard_size=shard_size), out)


def packed(index: Any, out: Path) -> None:
    """Say what was packed."""
    count = sum(shard.count for shard in index.shards)
    where = f"{len(index.shards)} shards, {len(index.classes)} classes"
    typer.echo(f"{out}: {count} samples in {where}, digest {index.digest[:12]}")
