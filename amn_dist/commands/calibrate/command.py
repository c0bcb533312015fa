"""Thresholds of a run from a few drawn masks, or an estimate without any: `amn calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amn_dist.commands.options import MovedData, RunPath, check_config_target
from amn_dist.commands.printing import print_line

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for torch
    from amn_dist.commands.calibrate.maps import CutMaps
    from amn_dist.runs.pipeline import Pipeline

Within = Annotated[
    float, typer.Option("--within", min=0.01, max=0.98, help="Width of the interval that more masks are counted for.")
]


def calibrate(
    run: RunPath,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="FOLDER", help="Drawn masks NAME.png, 5 or more; else an estimate."),
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Only the maps of this stage.")] = None,
    within: Within = 0.1,
    next: Annotated[int, typer.Option("--next", min=0, max=1000, help="Images to name that are worth drawing.")] = 10,
    images: Annotated[int, typer.Option("--images", min=1, max=100_000, help="Without masks: images to look at.")] = 48,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn by chance.")] = 0,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="Configuration of the run with the thresholds, .yaml."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    data: MovedData = None,
) -> None:
    """Say which threshold a few drawn masks choose for the maps of a run, how sure it is, and what to draw next."""
    from amn_dist.commands.calibrate.maps import cut_maps
    from amn_dist.runs.pipeline import reopen

    if write is not None:
        check_config_target("--write", write, force=force)
    pipeline = reopen(run, data=data)
    maps = cut_maps(pipeline, stage)
    if masks is None:
        thresholds = _estimate(pipeline, maps, images, seed)
    else:
        thresholds = _by_masks(pipeline, maps, masks, within, next, seed)
    _settings(pipeline, thresholds, write, "estimated without masks" if masks is None else f"by the masks of {masks}")


def _by_masks(
    pipeline: Pipeline, maps: list[CutMaps], folder: Path, within: float, count: int, seed: int
) -> dict[str, float]:
    """Print what masks say; thresholds by the name of their maps."""
    from amn_dist.commands.calibrate.drawn import calibrated, last_stored, mask_notes, row_notes
    from amn_dist.commands.calibrate.masks import read_masks
    from amn_dist.commands.calibrate.next_images import worth_drawing
    from amn_dist.commands.calibrate.tables import next_lines, print_calibration

    drawn = read_masks(folder, pipeline.sets["train"])
    rows = calibrated(pipeline, maps, drawn, seed=seed)
    print_calibration(pipeline, rows, within)
    for note in (*mask_notes(drawn, pipeline.sets["train"]), *row_notes(rows)):
        print_line(f"note: {note}")
    stored = last_stored(maps)
    if stored is not None and count:
        row = next(row for row in rows if row.maps is stored)
        ordinals = {mask.ordinal for mask in drawn}
        worth, seen = worth_drawing(stored, row.choice.interval, ordinals, count=count, seed=seed)
        for line in next_lines(row, worth, seen, len(stored.images) - len(ordinals)):
            print_line(line)
    return {row.maps.name: row.choice.threshold for row in rows}


def _estimate(pipeline: Pipeline, maps: list[CutMaps], count: int, seed: int) -> dict[str, float]:
    """Print what maps and photographs alone say; thresholds by the name of their maps."""
    from amn_dist.commands.calibrate.estimate import estimates
    from amn_dist.commands.calibrate.tables import print_estimates

    rows = estimates(pipeline, maps, count=count, seed=seed)
    print_estimates(rows)
    return {row.maps.name: row.threshold for row in rows}


def _settings(pipeline: Any, thresholds: dict[str, float], write: Path | None, because: str) -> None:
    """Say what every threshold is a setting of; write those of the last."""
    from amn_dist.commands.calibrate.settings import settings_of, words, write_config
    from amn_dist.errors import ConfigError

    settings = {name: settings_of(pipeline.config, name, value) for name, value in thresholds.items()}
    for name, of_maps in settings.items():
        print_line(f"set {name}: {words(of_maps)}" if of_maps else f"set {name}: no setting cuts it at a threshold")
    if write is None:
        return
    last = list(settings)[-1]
    if not settings[last]:
        raise ConfigError(f"--write {write}: no setting cuts {last} at a threshold, expected another --stage")
    said = f"Written by `amn calibrate {pipeline.run.folder}`: {words(settings[last])}, {because}."
    name = write_config(pipeline.config, settings[last], write, [said]).name
    print_line(f"{write}: the configuration of the run with {words(settings[last])}")
    print_line(f"next: amn run {write} --data {pipeline.data} --run {pipeline.run.folder.parent / name}")
