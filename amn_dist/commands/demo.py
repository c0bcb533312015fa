"""The whole system on drawn scenes: both methods, their scores side by side, pictures of what happened."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from rich.console import Console

from amn_dist.config import load_config
from amn_dist.errors import ConfigError, printable
from amn_dist.report.gallery import gallery, places, spread
from amn_dist.report.page import write_report
from amn_dist.report.tables import comparison, percent
from amn_dist.runs.pipeline import Pipeline, start_farm
from amn_dist.runs.run import Run, read_json
from amn_dist.runs.unfinished import UNDECIDED, Decision
from data_shards.synthetic import pack_synthetic

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"
VAL_SEED = 1_000_003
"""Seed of the validation scenes; the training scenes use the configuration's own."""


def run_demo(
    folder: Path,
    *,
    images: int,
    settings: tuple[str, ...],
    console: Console,
    redo: str | None = None,
    decision: Decision = UNDECIDED,
) -> None:
    """Pack `images` training and a fifth as many validation scenes under `folder`, run amn and irn, report.

    redo: a stage that is made again in both runs. decision: about work begun from other settings or code.
    """
    start = time.monotonic()
    if not CONFIG.is_file():
        raise ConfigError(f"{CONFIG}: not there; the demo runs from a clone of the repository")
    for setting in settings:
        if setting.partition("=")[0].strip() in ("method", "name"):
            raise ConfigError(f"--set {printable(setting)}: the demo runs amn and irn; `amn run` runs any method")
    configs = {m: load_config(CONFIG, (f"method={m}", f"name={m}", *settings)) for m in ("amn", "irn")}
    data = folder / "data"
    pack_synthetic(data / "train", images=images, seed=0)
    pack_synthetic(data / "val", images=max(images // 5, 16), seed=VAL_SEED)
    with contextlib.closing(start_farm(configs["amn"])) as farm:
        lines = {
            method: Pipeline(config, Run(folder / method), data, console=console, farm=farm, decision=decision)
            for method, config in configs.items()
        }
        for method, line in lines.items():
            console.rule(method)
            line.execute(redo=redo if method == "amn" or redo in [stage.name for stage in line.stages] else None)
    scores = {name: read_json(line.run.folder / "score" / "score.json") for name, line in lines.items()}
    console.print(comparison(scores))
    rows = scores["amn"]["sets"]["train"]["rows"]
    at = rows["cam"]["default_threshold"]
    gain = rows["amn_map"]["default_miou"] - rows["cam"]["default_miou"]
    console.print(f"AMN's map against CAM's at threshold {at:.2f}: {percent(gain)} points of mIoU")
    for name, line in lines.items():
        paint(line, folder / f"{name}.png", console)
    write_report([folder / name for name in lines], folder / "report.html", images=60)
    where = f"scores in {folder}/*/score/score.json, report: {folder}/report.html"
    console.print(f"{time.monotonic() - start:.0f} s in all; {where}", markup=False)


def paint(line: Pipeline, out: Path, console: Console) -> None:
    """A contact sheet of a few training and validation scenes through every stage."""
    sets, _ = places(line.run.folder)
    picture = gallery(spread(sets, 4))
    picture.save(out)
    console.print(f"pictures: {out} ({picture.width}x{picture.height})", markup=False, highlight=False)
