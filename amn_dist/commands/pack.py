"""Data sets into shards: `amn pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amn_dist.commands.options import Address, OutAnywhere, ShardSize, SkipBad
from amn_dist.commands.printing import print_line

Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, max=65536, help="Processes to pack with, 0: one a core; threads here without it."),
]

pack = typer.Typer(help="Turn a data set into shards.", no_args_is_help=True)


@pack.command("voc")
def pack_voc(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="VOC devkit layout.")],
    out: OutAnywhere,
    split: Annotated[str, typer.Option(help="ImageSets/Segmentation/SPLIT.txt")] = "train",
    difficult: Annotated[bool, typer.Option("--difficult/--no-difficult", help="Count difficult objects.")] = True,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """VOC layout: photos, tags from the XML files, masks as truth where there are any."""
    from data_shards import task, voc

    with task.packing_farm(workers, address) as farm:
        index = voc.pack_voc(
            root, split=split, out=out, difficult=difficult, shard_size=shard_size, skip_bad=skip_bad, farm=farm
        )
    print_packed(index, out)


@pack.command("coco")
def pack_coco(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="COCO layout.")],
    out: OutAnywhere,
    split: Annotated[str, typer.Option(help="SPLIT/*.jpg and annotations/instances_SPLIT.json")] = "train2014",
    annotations: Annotated[Path | None, typer.Option(help="Another annotation file.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Class names, one a line, background first.")] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled/--no-unlabelled", help="Keep images without annotations, as published.")
    ] = True,
    clip: Annotated[
        bool, typer.Option("--clip", help="Cut outlines that leave their picture; else it is bad.")
    ] = False,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """COCO layout: photos, tags from the annotations, painted outlines as truth."""
    from data_shards import coco, task

    with task.packing_farm(workers, address) as farm:
        index = coco.pack_coco(
            root,
            split=split,
            out=out,
            annotations=annotations,
            classes=classes,
            unlabelled=unlabelled,
            clip=clip,
            shard_size=shard_size,
            skip_bad=skip_bad,
            farm=farm,
            tell=print_line,
        )
    print_packed(index, out)


@pack.command("folder")
def pack_folder(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with images anywhere below.")],
    labels: Annotated[Path, typer.Option(help="CSV (file,labels) or JSON lines.")],
    out: OutAnywhere,
    classes: Annotated[Path | None, typer.Option(help="Class names, one a line, background first.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of truth masks, STEM.png.")] = None,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Images in a folder with a table of labels."""
    from data_shards import folder, task

    with task.packing_farm(workers, address) as farm:
        index = folder.pack_folder(
            root,
            labels=labels,
            out=out,
            classes=classes,
            masks=masks,
            shard_size=shard_size,
            skip_bad=skip_bad,
            farm=farm,
        )
    print_packed(index, out)


@pack.command("synthetic")
def pack_synthetic(
    out: OutAnywhere,
    images: Annotated[int, typer.Option(help="Scenes to draw.", min=1, max=1_000_000)] = 320,
    seed: Annotated[int, typer.Option(help="Which scenes.", min=0, max=2**63 - 1)] = 0,
    shard_size: ShardSize = None,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Drawn scenes with exact masks."""
    from data_shards import synthetic, task

    with task.packing_farm(workers, address) as farm:
        index = synthetic.pack_synthetic(out, images=images, seed=seed, shard_size=shard_size, farm=farm)
    print_packed(index, out)


def print_packed(index: Any, out: Any) -> None:
    """Say what was packed."""
    count = sum(shard.count for shard in index.shards)
    where = f"{len(index.shards)} shards, {len(index.classes)} classes"
    print_line(f"{out}: {count} samples in {where}, digest {index.digest[:12]}")
