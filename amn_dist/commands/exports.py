"""Masks, maps, weights and networks for other code: `amn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from amn_dist.commands.options import MovedData, RunPath
from amn_dist.commands.printing import print_line

exports = typer.Typer(help="Hand masks, maps, weights and networks to other code.", no_args_is_help=True)

RunOrSet = Annotated[str, typer.Argument(metavar="RUN|SHARDSET", help="A run, or a shard set.")]
StageOption = Annotated[str | None, typer.Option("--stage", help="Of a run: the stage that made them.")]
FieldOption = Annotated[str | None, typer.Option("--field", help="Field of the set, such as raw.png.")]
MaskFormat = Literal["voc", "coco"]


def selected_masks(place: str, stage: str | None, field: str | None, data: Any) -> Any:
    """The labels a command means; says where names are not those of the photographs."""
    from amn_dist.interchange.selection import select_masks

    selected = select_masks(place, stage=stage, field=field, data=data)
    if selected.note:
        print_line(f"note: {selected.note}", err=True)
    return selected


@exports.command("masks")
def export_masks(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="Folder of PNGs, or the COCO file.")],
    format: Annotated[MaskFormat, typer.Option(help="voc: palette PNGs, 255 kept. coco: as amn export coco.")] = "voc",
    stage: StageOption = None,
    field: FieldOption = None,
    data: MovedData = None,
) -> None:
    """Labels; of a run, without --stage, those its segmentation network learns from."""
    from amn_dist.interchange.masks import export_masks
    from amn_dist.interchange.selection import select_masks

    if format == "coco":
        return export_coco(place, out, stage, field, data)
    selected = select_masks(place, stage=stage, field=field, data=data)
    print_line(f"{out}: {export_masks(selected, out)} masks ({selected.shards.kind}, {selected.field})")


@exports.command("coco")
def export_coco(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")],
    stage: StageOption = None,
    field: FieldOption = None,
    data: MovedData = None,
) -> None:
    """Labels as one COCO file of run lengths, with the names and ids of what the images were packed from."""
    from amn_dist.interchange.coco import export_coco

    selected = selected_masks(place, stage, field, data)
    print_line(f"{out}: {export_coco(selected, out)} regions in {len(selected.shards)} images")


@exports.command("yolo")
def export_yolo(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="Folder to write labels/NAME.txt and data.yaml to.")],
    stage: StageOption = None,
    field: FieldOption = None,
    data: MovedData = None,
) -> None:
    """Labels as polygons for YOLO's segmentation networks; the photographs belong into OUT/images."""
    from amn_dist.interchange.yolo import export_yolo

    print_line(f"{out}: polygons of {export_yolo(selected_masks(place, stage, field, data), out)} images")


@exports.command("labelstudio")
def export_label_studio(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="JSON file of tasks; beside it OUT.xml, the interface.")],
    prefix: Annotated[
        str, typer.Option(help="What stands before a photograph's name in a task; a URL, or of local storage.")
    ] = "/data/local-files/?d=",
    stage: StageOption = None,
    field: FieldOption = None,
    data: MovedData = None,
) -> None:
    """Labels as predictions that Label Studio imports, brushes to be corrected by hand."""
    from amn_dist.interchange.label_studio import export_label_studio

    selected = selected_masks(place, stage, field, data)
    print_line(f"{out}: {export_label_studio(selected, out, prefix=prefix)} tasks; {out.with_suffix('.xml')}")


@exports.command("cvat")
def export_cvat(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="XML file to write.")],
    stage: StageOption = None,
    field: FieldOption = None,
    data: MovedData = None,
) -> None:
    """Labels as masks that CVAT imports (CVAT for images 1.1), to be corrected by hand."""
    from amn_dist.interchange.cvat import export_cvat

    selected = selected_masks(place, stage, field, data)
    print_line(f"{out}: {export_cvat(selected, out)} masks in {len(selected.shards)} images")


@exports.command("maps")
def export_maps(
    place: RunOrSet,
    out: Annotated[Path, typer.Option("--out", help="Folder to write KEY.npy to.")],
    stage: StageOption = None,
    images: Annotated[str | None, typer.Option("--images", help="Image set a lone shard set lies over.")] = None,
    fine: Annotated[bool, typer.Option("--fine/--no-fine", help="With maps of the image's size.")] = True,
    data: MovedData = None,
) -> None:
    """Activation maps as the dictionaries published code reads; of a run, without --stage, those of its first map."""
    from amn_dist.interchange.maps import export_maps
    from amn_dist.interchange.selection import select_maps

    selected = select_maps(place, stage=stage, images=images, data=data)
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


@exports.command("network")
def export_network(
    run: RunPath,
    out: Annotated[Path, typer.Option("--out", help="FILE.onnx (with the extra onnx), or FILE.pt2 of torch.export.")],
    data: MovedData = None,
) -> None:
    """The segmentation network for other programs: photographs of any size in, class probabilities out."""
    from amn_dist.interchange.network import export_network
    from amn_dist.runs.pipeline import reopen

    export_network(reopen(run, data=data), out)
    print_line(f"{out} ({out.stat().st_size / 2**20:.1f} MiB)")
