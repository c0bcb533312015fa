"""Maps, proposals and weights of other code: `amn import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from amn_dist.commands.options import DataOption, OutAnywhere, Settings, SkipBad
from amn_dist.commands.printing import print_line
from amn_dist.errors import ConfigError
from amn_dist.storage.paths import AnyPath, path_of

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for numpy
    from data_shards.overlay import Imported

imports = typer.Typer(help="Take over maps, proposals and weights that other code made.", no_args_is_help=True)

MapScale = Literal["keep", "peak"]
PublishedNetwork = Literal["cam", "amn", "irn", "deeplab", "icd"]


@imports.command("maps")
def import_maps(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with KEY.npy: pickled dictionaries of maps.")],
    images: Annotated[str, typer.Option("--images", help="Image set the maps belong to.")],
    out: OutAnywhere,
    scale: Annotated[
        MapScale, typer.Option(help="keep: values lie in [0, 1]. peak: each class over its peak, nothing below 0.")
    ] = "keep",
    skip_bad: SkipBad = False,
) -> None:
    """Activation maps of any other method, for method refine. Nothing in the files is executed."""
    from data_shards.maps import import_maps

    imported = import_maps(folder, images, out, scale=scale, skip_bad=skip_bad)
    _tell_import(imported, out, "maps")
    if imported.bad:
        print_line(f"{len(imported.bad)} images have no usable map and stay undecided; {out}/quarantine.json says why")
    if imported.others:
        print_line(f"{imported.others} files belong to no image of {images} and were left alone")


@imports.command("regions")
def import_regions(
    path: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="Folder with KEY.json: lists of COCO's run lengths; or one file.")
    ],
    images: Annotated[str, typer.Option("--images", help="Image set the proposals belong to.")],
    out: OutAnywhere,
    skip_bad: SkipBad = False,
) -> None:
    """Class-agnostic masks of a foundation model, for stage vote (`vote.proposals`)."""
    from data_shards.regions import import_regions

    imported = import_regions(path, images, out, skip_bad=skip_bad)
    _tell_import(imported, out, "proposals")
    if imported.bad:
        print_line(f"{len(imported.bad)} images have no usable proposals; {out}/quarantine.json says why")
    if imported.others:
        what = "entries" if path.is_file() else "files"
        print_line(f"{imported.others} {what} belong to no image of {images} and were left alone")


def _tell_import(imported: Imported, out: AnyPath, what: str) -> None:
    """Print what lies where now."""
    index = imported.index
    count = sum(shard.count for shard in index.shards)
    print_line(f"{out}: {what} of {count} images in {len(index.shards)} shards, digest {index.digest[:12]}")


@imports.command("weights")
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .pt or .safetensors checkpoint.")],
    network: Annotated[PublishedNetwork | None, typer.Option("--as", help="Whose it is, with --out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write, .safetensors under our names.")] = None,
    run: Annotated[
        Any,
        typer.Option(
            "--run", parser=path_of, metavar="FOLDER|URL", help="Run that uses them instead of training a stage."
        ),
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="That stage, with --run.")] = None,
    config: Annotated[
        Any,
        typer.Option("--config", parser=path_of, metavar="FILE", help="Configuration of a run that is not there yet."),
    ] = None,
    data: DataOption = Path("."),
    set: Settings = None,
) -> None:
    """A checkpoint into a file of ours (--as, --out), or into a run in the place of training (--run, --stage)."""
    from amn_dist.interchange.weights import adopt_weights, convert_weights

    if network is not None and out is not None and run is None and stage is None:
        converted = convert_weights(file, network, out)
    elif run is not None and stage is not None and network is None and out is None:
        converted = adopt_weights(_pipeline(run, config, data, set), stage, file)
    else:
        raise ConfigError("amn import weights: found other options, expected --as with --out, or --run with --stage")
    classes = f" for {converted.classes} classes" if converted.classes else ""
    print_line(f"{converted.path}: {converted.tensors} tensors{classes}, from {converted.keys} keys of {file}")
    if converted.note:
        print_line(f"note: {converted.note}", err=True)


def _pipeline(run: AnyPath, config: AnyPath | None, data: AnyPath, settings: list[str] | None) -> Any:
    """A run that is there, or one that is to begin."""
    from amn_dist.runs.pipeline import Pipeline, reopen
    from amn_dist.runs.run import Run, read_config

    if config is None:
        return reopen(run)
    return Pipeline(read_config(config, tuple(settings or ())), Run(run), data)
