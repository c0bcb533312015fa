"""The whole system on drawn scenes, both methods, their scores side by side, pictures of what happened: `amn demo`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amn_dist.commands.options import Keep, Redo, Settings
from amn_dist.commands.printing import plain_console, print_table
from amn_dist.commands.run import decision
from amn_dist.errors import ConfigError, printable

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for torch
    from rich.console import Console

    from amn_dist.config import Config
    from amn_dist.runs.pipeline import Pipeline

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"
VAL_SEED = 1_000_003
"""Seed of the validation scenes; the training scenes use the configuration's own."""


def demo(
    run: Annotated[Path, typer.Option("--run", help="Folder for shards, runs and pictures.")] = Path("runs/demo"),
    images: Annotated[int, typer.Option(help="Training scenes.", min=32, max=1_000_000)] = 320,
    redo: Redo = None,
    keep: Keep = False,
    set: Settings = None,
) -> None:
    """Draw synthetic scenes, run irn and amn on them, print scores, write a report. Minutes on two cores."""
    from amn_dist.report.page import write_report
    from amn_dist.runs.run import read_json

    start, console = time.monotonic(), plain_console()
    configs = demo_configs(tuple(set or ()))
    draw_scenes(run / "data", images)
    pipelines = run_methods(configs, run, console, redo=redo, decision=decision(keep))
    scores = {name: read_json(pipeline.run.folder / "score" / "score.json") for name, pipeline in pipelines.items()}
    print_comparison(scores, console)
    for name, pipeline in pipelines.items():
        draw_stages(pipeline, run / f"{name}.png", console)
    write_report([run / name for name in pipelines], run / "report.html", images=60)
    where = f"scores in {run}/*/score/score.json, report: {run}/report.html"
    console.print(f"{time.monotonic() - start:.0f} s in all; {where}", markup=False)


def demo_configs(settings: tuple[str, ...]) -> dict[str, Config]:
    """The demo's configuration for each method, under settings that do not choose one."""
    from amn_dist.config import load_config

    if not CONFIG.is_file():
        raise ConfigError(f"{CONFIG}: not there; the demo runs from a clone of the repository")
    for setting in settings:
        if setting.partition("=")[0].strip() in ("method", "name"):
            raise ConfigError(f"--set {printable(setting)}: the demo runs amn and irn; `amn run` runs any method")
    return {name: load_config(CONFIG, (f"method={name}", f"name={name}", *settings)) for name in ("amn", "irn")}


def draw_scenes(data: Path, images: int) -> None:
    """Pack `images` training and a fifth as many validation scenes."""
    from data_shards.synthetic import pack_synthetic

    pack_synthetic(data / "train", images=images, seed=0)
    pack_synthetic(data / "val", images=max(images // 5, 16), seed=VAL_SEED)


def run_methods(
    configs: dict[str, Config], folder: Path, console: Console, *, redo: str | None, decision: Any
) -> dict[str, Pipeline]:
    """Run every method to its end, all on one farm; amn first, whose classifier and maps irn takes over.

    redo: a stage that is made again in each run that has it. decision: about work begun from other settings or code.
    """
    from amn_dist.runs.experiment import start_farm
    from amn_dist.runs.pipeline import Pipeline
    from amn_dist.runs.run import Run

    with contextlib.closing(start_farm(configs["amn"])) as farm:
        pipelines = {
            name: Pipeline(config, Run(folder / name), folder / "data", console=console, farm=farm, decision=decision)
            for name, config in configs.items()
        }
        for name, pipeline in pipelines.items():
            console.rule(name)
            has_stage = redo in [stage.name for stage in pipeline.stages]
            pipeline.execute(redo=redo if name == "amn" or has_stage else None)
    return pipelines


def print_comparison(scores: dict[str, Any], console: Console) -> None:
    """The scores side by side, and what AMN's map gains over CAM's at one threshold."""
    from amn_dist.report.tables import comparison, percent

    print_table(console, comparison(scores))
    rows = scores["amn"]["sets"]["train"]["rows"]
    threshold = rows["cam"]["default_threshold"]
    gain = rows["amn_map"]["default_miou"] - rows["cam"]["default_miou"]
    console.print(f"AMN's map against CAM's at threshold {threshold:.2f}: {percent(gain)} points of mIoU")


def draw_stages(pipeline: Pipeline, out: Path, console: Console) -> None:
    """A contact sheet of a few training and validation scenes through every stage."""
    from amn_dist.report.contact_sheet import contact_sheet, even_samples, open_image_columns

    sets, _ = open_image_columns(pipeline.run.folder)
    picture = contact_sheet(even_samples(sets, 4))
    picture.save(out)
    console.print(f"pictures: {out} ({picture.width}x{picture.height})", markup=False, highlight=False)
