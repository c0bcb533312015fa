"""Data sets into shards: `amn pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amn_dist.commands.options import Address, OutAnywhere, ShardSize, SkipBad
from amn_dist.commands.pack.options import (
    AcceptNames,
    Classes,
    Convert,
    FollowLinks,
    TrustMasks,
    TrustTags,
    Workers,
    allowances,
)
from amn_dist.commands.pack.summary import print_packed
from amn_dist.commands.printing import print_line

pack = typer.Typer(help="Turn a data set into shards.", no_args_is_help=True)


@pack.command("voc")
def pack_voc(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="VOC devkit layout; class names in ROOT/classes.txt.")],
    out: OutAnywhere,
    split: Annotated[str, typer.Option(help="ImageSets/Segmentation/SPLIT.txt, or Main.")] = "train",
    tags: Annotated[
        Path | None, typer.Option(help="cls_labels.npy or CSV (file,labels), in ROOT or anywhere; no XML.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, in ROOT or anywhere; else it is found.")] = None,
    truth: Annotated[bool, typer.Option("--truth/--no-truth", help="Pack masks, where there are any.")] = True,
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one a line in id order; ROOT/classes.txt, or VOC's, without it.")
    ] = None,
    difficult: Annotated[bool, typer.Option("--difficult/--no-difficult", help="Count difficult objects.")] = True,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="An image without an XML file has no tags; else it is bad.")
    ] = False,
    trust_masks: TrustMasks = False,
    trust_tags: TrustTags = False,
    convert: Convert = False,
    follow_links: FollowLinks = False,
    accept_names: AcceptNames = False,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """VOC layout: photos, tags from the XML files or a file of tags, masks as truth where there are any."""
    from data_shards import task, voc

    allow = allowances(
        trust_masks=trust_masks,
        trust_tags=trust_tags,
        convert=convert,
        follow_links=follow_links,
        accept_names=accept_names,
    )
    with task.packing_farm(workers, address) as farm:
        index = voc.pack_voc(
            root,
            split=split,
            out=out,
            tags=tags,
            masks=masks,
            truth=truth,
            classes=classes,
            difficult=difficult,
            unlabelled=unlabelled,
            allow=allow,
            shard_size=shard_size,
            skip_bad=skip_bad,
            farm=farm,
        )
    print_packed(index, out)


@pack.command("coco")
def pack_coco(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="COCO layout.")],
    out: OutAnywhere,
    split: Annotated[str, typer.Option(help="SPLIT/*.jpg and annotations/instances_SPLIT.json")] = "train2014",
    annotations: Annotated[Path | None, typer.Option(help="Another annotation file.")] = None,
    classes: Classes = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled/--no-unlabelled", help="Keep images without annotations, as published.")
    ] = True,
    clip: Annotated[
        bool, typer.Option("--clip", help="Cut outlines that leave their picture; else it is bad.")
    ] = False,
    convert: Convert = False,
    follow_links: FollowLinks = False,
    accept_names: AcceptNames = False,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """COCO layout: photos, tags from the annotations, painted outlines as truth."""
    from data_shards import coco, task

    allow = allowances(convert=convert, follow_links=follow_links, accept_names=accept_names)
    with task.packing_farm(workers, address) as farm:
        index = coco.pack_coco(
            root,
            split=split,
            out=out,
            annotations=annotations,
            classes=classes,
            unlabelled=unlabelled,
            clip=clip,
            allow=allow,
            shard_size=shard_size,
            skip_bad=skip_bad,
            farm=farm,
            tell=print_line,
        )
    print_packed(index, out)


@pack.command("folder")
def pack_folder(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with images anywhere below.")],
    labels: Annotated[Path, typer.Option(help="CSV (file,labels), JSON lines, or cls_labels.npy.")],
    out: OutAnywhere,
    classes: Classes = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of truth masks, STEM.png.")] = None,
    trust_masks: TrustMasks = False,
    trust_tags: TrustTags = False,
    convert: Convert = False,
    follow_links: FollowLinks = False,
    accept_names: AcceptNames = False,
    shard_size: ShardSize = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Images in a folder with a table of labels."""
    from data_shards import folder, task

    allow = allowances(
        trust_masks=trust_masks,
        trust_tags=trust_tags,
        convert=convert,
        follow_links=follow_links,
        accept_names=accept_names,
    )
    with task.packing_farm(workers, address) as farm:
        index = folder.pack_folder(
            root,
            labels=labels,
            out=out,
            classes=classes,
            masks=masks,
            allow=allow,
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
