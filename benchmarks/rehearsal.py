"""What would COCO cost here? The whole AMN pipeline on a set of COCO's shape, every stage measured and projected.

Draws the set (coco_like.py), packs it with `amn pack coco`, runs `amn run configs/coco14_amn.yaml` with published
settings but few steps and random weights (DeepLab all but stands still), reads what every stage recorded of itself, and
hands seconds an image to the model of scale.py. Beside it stands the published code's arithmetic (amn 7) at the speed
of a large matrix product here, its CRFs at their published seconds on every core. A rehearsal that was cut off goes on.

    python -m benchmarks.rehearsal [PHOTOGRAPHS] --images 200 --steps-cap 20 --out FOLDER [--stages cam cam_seed]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amn_dist.config import Config, load_config
from amn_dist.methods import Stage, stages
from amn_dist.report.stage_metrics import read_records
from amn_dist.telemetry import METRICS
from benchmarks.coco_like import TRAIN, VAL, make_coco_like
from benchmarks.harness import PHOTOGRAPHS, race, write_result
from benchmarks.memory import Watch, peak_by
from benchmarks.scale import CORES, CPU, GPU, GPUS, prediction

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "coco14_amn.yaml"
FITS = ("classify", "amn", "irn", "segment")
EPOCHS = 5
"""Of the classifier and AMN on COCO; IRN has 3, DeepLab 100,000 steps of 10 (amn 4)."""
PUBLISHED_FLOPS = {
    "classify": EPOCHS * TRAIN * 155e9,
    "cam": TRAIN * 1_140e9,
    "amn": EPOCHS * TRAIN * 228e9,
    "amn_map": TRAIN * 1_355e9,
    "irn": 3 * TRAIN * 90e9,
    "walk": TRAIN * (175e9 + 113e12),
    "segment": 100_000 * 10 * 908e9,
    "predict": VAL * 886e9,
}
"""Operations of the published code on COCO (amn 7)."""
PUBLISHED_CRF_S = {"cam_seed": TRAIN * 0.825, "amn_seed": TRAIN * 0.825, "predict": VAL * 6.3}
"""Its seconds of CRFs on one core (amn 7)."""
PUBLISHED_BYTES = {"cam": TRAIN * 3.8e6, "amn_map": TRAIN * 5.1e6, "predict": VAL * 1.6e6}
"""What it leaves on the disk between stages (amn 7)."""


@dataclass(frozen=True)
class Measured:
    """A stage as it ran. image_s: of one core (CPU) or one GPU. wait: share of a Fit's time without data."""

    images_per_s: float
    image_s: float
    data_wait: float | None
    memory_gib: float | None
    disk_bytes_per_image: int | None
    seconds: float | None


def settings(config: Config, images: int, steps: int, device: str) -> list[str]:
    """What the rehearsal sets over the file: pools, steps, batches within the set, random weights, each step logged."""
    cores = len(os.sched_getaffinity(0))
    found = ["farm.pools=two"] if device == "cuda" or cores > 1 else []
    if found and device == "cpu":
        # Networks cost ten times what CRFs do: with a core each, most of the cores would wait.
        found += [f"farm.network_workers={cores - cores // 4}", f"farm.workers={max(cores // 4, 1)}"]
    for name in FITS:
        section = getattr(config, name)
        found += [f"{name}.steps={steps}", f"{name}.log_every=1", f"{name}.backbone.weights=null"]
        found += [f"{name}.batch={images}"] if section.batch > images else []
        found += [f"{name}.micro_batch=2"] if device == "cpu" and min(section.batch, images) % 2 == 0 else []
    # From random weights, with norms that do not learn, DeepLab's published rates end at infinity within steps.
    return [*found, "segment.lr=1e-9", "segment.lr_head=1e-9"]


def amn(*words: str | Path) -> None:
    """A command of this checkout, as a user would give it; what it says is seen."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "amn_dist", *map(str, words)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: ended with {done.returncode}; the same rehearsal goes on from here")


def records(folder: Path) -> list[dict[str, Any]]:
    """What a stage said of itself, oldest first."""
    return [record for record in read_records(folder / METRICS) if record is not None]


def read_fit(folder: Path, *, cores: int) -> Measured | None:
    """Rates of single steps, the first left out (it starts everything), in their median."""
    steps = [record for record in records(folder) if "images_per_s" in record]
    seen = steps[1:] or steps
    if not seen:
        return None
    rate = statistics.median(record["images_per_s"] for record in seen)
    wait = statistics.mean(record["data_wait"] for record in seen)
    memory = max(record.get("memory_gib", 0.0) for record in steps)
    # Time without data is the loader's, which the model counts for itself.
    return Measured(rate, (1 - wait) / rate * cores, round(wait, 4), memory, None, taken(folder))


def read_map(folder: Path, leg: str, *, workers: int, images: int) -> Measured | None:
    """A Map's rate, and what an image costs a worker: the share of time its pool was busy, over its rate.

    folder: of the stage its stream is recorded under. leg: pool it ran in; in one for all, `workers`, the whole
    stream's cost stands with its first stage.
    """
    ends = [record for record in records(folder) if "images_per_s" in record and record["images_per_s"] > 0]
    if not ends:
        return None
    last = ends[-1]
    busy = last.get("busy", {}).get(leg, 1.0)
    rate = last["images_per_s"]
    return Measured(rate, busy * workers / rate, None, None, tars(folder) // images, taken(folder))


def taken(folder: Path) -> float | None:
    """Seconds a stage took in the call that ended it."""
    ends = [record["seconds"] for record in records(folder) if record.get("done")]
    return ends[-1] if ends else None


def tars(folder: Path) -> int:
    """Bytes of a folder's shards."""
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def read_stages(config: Config, run: Path, sizes: dict[str, int], wanted: Iterable[str]) -> dict[str, Measured]:
    """What every finished stage measured. sizes: images of the training and the validation set."""
    cores = len(os.sched_getaffinity(0))
    two = config.farm.pools == "two"
    networks = config.farm.network_workers or max(torch.cuda.device_count(), 1)
    rest = config.farm.workers or max(cores - networks, 1)
    workers = {"network": networks, "cpu": rest} if two else {"workers": config.farm.workers or cores}
    found = {}
    for stage in stages(config):
        if stage.name not in wanted or stage.verb == "score":
            continue
        measured = read_stage(stage, run, workers=workers, images=sizes[stage.over])
        if measured is not None:
            found[stage.name] = measured
    return found


def read_stage(stage: Stage, run: Path, *, workers: dict[str, int], images: int) -> Measured | None:
    """workers: of every pool."""
    if stage.verb == "fit":
        return read_fit(run / stage.name, cores=1 if torch.cuda.is_available() else threads())
    follows = stage.follows is not None
    if follows and "cpu" not in workers:
        return None
    leg = "workers" if "workers" in workers else "cpu" if follows else "network"
    # A stream is recorded under the stage that was asked for: the second of two, when the first was done before.
    places = [run / name for name in (stage.name, stage.follows) if name is not None]
    folder = next((place for place in places if any("busy" in record for record in records(place))), places[-1])
    found = read_map(folder, leg, workers=workers[leg], images=images)
    return found and replace(found, disk_bytes_per_image=tars(run / stage.name) // images)


def threads() -> int:
    """Cores a training process computes on."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(os.environ.get("OMP_NUM_THREADS", cores)))


def projection(found: dict[str, Measured], peak: float) -> dict[str, Any]:
    """Hours and bytes on COCO: ours by the model from measured seconds an image, published by its arithmetic."""
    image_s = {name: measured.image_s for name, measured in found.items()}
    kind, machine, sizes = ("gpu", GPU, GPUS) if torch.cuda.is_available() else ("cpu", CPU, CORES)
    cores = len(os.sched_getaffinity(0))
    published = {
        name: round((PUBLISHED_FLOPS.get(name, 0.0) / peak + PUBLISHED_CRF_S.get(name, 0.0) / cores) / 3600, 3)
        for name in image_s
    }
    disk = {
        name: round(measured.disk_bytes_per_image * (VAL if name == "predict" else TRAIN) / 1e9, 2)
        for name, measured in found.items()
        if measured.disk_bytes_per_image
    }
    return {
        "assumptions": asdict(machine),
        f"hours_by_{kind}s": prediction(kind, machine, sizes, image_s),
        "published_hours_here": {**published, "total": round(sum(published.values()), 2)},
        "matrix_flops_per_s_here": round(peak),
        "gigabytes": disk,
        "published_gigabytes": {name: size / 1e9 for name, size in PUBLISHED_BYTES.items() if name in found},
    }


def matrix_rate(side: int = 2048) -> float:
    """Operations a second of a large float32 product, with all cores or on the GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    return 2 * side**3 / race({"product": partial(torch.mm, a, b)})["product"].median


class Seen:
    """What was seen while it happened, in a file: a rehearsal that goes on keeps it. sets: by role, of the call that
    packed it. gib: most memory of all processes, by stage."""

    def __init__(self, path: Path) -> None:
        kept = json.loads(path.read_text()) if path.is_file() else {}
        self.sets: dict[str, Any] = kept.get("sets", {})
        self.gib: dict[str, float] = kept.get("gib", {})
        self._path = path

    def pack(self, role: str, figures: dict[str, Any]) -> None:
        self.sets.setdefault(role, figures)
        self._write()

    def memory(self, peaks: dict[str, float]) -> None:
        self.gib |= {name: max(peak, self.gib.get(name, 0.0)) for name, peak in peaks.items()}
        self._write()

    def _write(self) -> None:
        self._path.write_text(json.dumps({"sets": self.sets, "gib": self.gib}))


def rehearse(asked: argparse.Namespace) -> dict[str, Any]:
    """Draw, pack, run, read; every part goes on where it was cut off."""
    coco, data, run = asked.out / "coco", asked.out / "data", asked.out / "run"
    sizes = {"train": asked.images, "val": asked.val_images or max(round(asked.images * VAL / TRAIN), 2)}
    seen = Seen(asked.out / "seen.json")
    for role, split in (("train", "train2014"), ("val", "val2014")):
        start = time.perf_counter()
        drawn = make_coco_like(coco, split, images=sizes[role], photographs=asked.photographs, seed=asked.seed)
        begun = time.perf_counter()
        amn("pack", "coco", coco, "--split", split, "--out", data / role)
        seconds = {"draw_s": round(begun - start, 1), "pack_s": round(time.perf_counter() - begun, 1)}
        seen.pack(role, {**drawn, **seconds, "shard_bytes_per_image": tars(data / role) // sizes[role]})
    record: dict[str, Any] = {"images": sizes, "steps_cap": asked.steps_cap, "sets": seen.sets}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = settings(load_config(CONFIG), sizes["train"], asked.steps_cap, device)
    changed = list({setting.partition("=")[0]: setting for setting in (*own, *asked.set)}.values())
    config = load_config(CONFIG, tuple(changed))
    names = [stage.name for stage in stages(config) if stage.verb != "score"]
    wanted = asked.stages or names
    until = max(wanted, key=names.index)
    words = [word for setting in changed for word in ("--set", setting)]
    try:
        with Watch(run) as watch:
            amn("run", CONFIG, "--data", data, "--run", run, "--until", until, "--no-reuse", *words)
    finally:
        seen.memory(peak_by(watch.samples))
    found = read_stages(config, run, sizes, wanted)
    record["settings"] = changed
    record["stages"] = {
        name: asdict(measured) | ({"all_processes_gib": seen.gib[name]} if name in seen.gib else {})
        for name, measured in found.items()
    }
    record["all_stages_measured"] = set(found) == set(names)
    record["projection"] = projection(found, matrix_rate())
    return record


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?", default=PHOTOGRAPHS)
    parser.add_argument("--images", type=int, default=32, help=f"of the training set, at most {TRAIN}")
    parser.add_argument("--val-images", type=int, default=0, help="0: COCO's share")
    parser.add_argument("--steps-cap", type=int, default=4, help="optimiser steps of every Fit")
    parser.add_argument("--stages", nargs="+", help="stages to measure; all that they need is run")
    parser.add_argument("--out", type=Path, default=Path("runs/rehearsal"), help="set, shards and run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="section.key=value, as of amn run")
    asked = parser.parse_args(words)
    if not 1 <= asked.images <= TRAIN:
        parser.error(f"--images {asked.images}: expected 1 to {TRAIN}")
    known = [stage.name for stage in stages(load_config(CONFIG)) if stage.verb != "score"]
    if asked.stages and not set(asked.stages) <= set(known):
        parser.error(f"--stages {' '.join(asked.stages)}: expected some of {', '.join(known)}")
    return asked


def main() -> None:
    write_result("rehearsal", rehearse(parsed()))


if __name__ == "__main__":
    main()
