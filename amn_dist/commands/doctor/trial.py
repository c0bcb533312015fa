"""A run of seconds over a few drawn scenes: does everything work here? It leaves the compiled kernels behind."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from rich.console import Console

from amn_dist.commands.doctor.machine import Check
from amn_dist.config import Config
from amn_dist.errors import printable
from amn_dist.farms.local import LocalFarm
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from data_shards.synthetic import pack_synthetic

FIT = {
    "backbone": {"name": "small", "stride": 8, "weights": None, "frozen_taps": 0},
    "optimiser": "adam",
    "batch": 4,
    "epochs": 1,
    "crop": 48,
}


def try_out() -> Check:
    """Run every stage of method amn in this process, with the engines of a real run; the farm is this process."""
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run(Path(folder))
    except Exception as error:  # whatever is wrong with the machine
        fault = f"{type(error).__name__}: {printable(str(error), 500)}"
        return Check("trial run", False, fault, "mend what is named; amn --debug doctor --try shows where")
    return Check("trial run", True, f"every stage over 8 drawn scenes in {time.monotonic() - start:.0f} s")


def _run(folder: Path) -> None:
    for name, images in (("train", 8), ("val", 2)):
        pack_synthetic(folder / name, images=images, classes=2, size=(48, 64), seed=len(name))
    settings = {name: FIT for name in ("classify", "amn", "irn", "segment")}
    config = Config.model_validate(
        {"name": "trial", **settings, "segment": {**FIT, "steps": None}, "walk": {"pad": None}}
    )
    Pipeline(config, Run(folder / "run"), folder, console=Console(quiet=True), farm=LocalFarm()).execute()
