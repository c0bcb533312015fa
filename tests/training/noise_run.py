"""Fits that gangs could spoil, trained on noise in a process of their own: `python noise_run.py CASES.json`, a rank.

A case: folder, engine, fit (`discriminate` or `amn`), precision, what differs in its section, and stop_at, the step
after which it stops itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amn_dist.config import Config, EngineSection
from amn_dist.errors import StageError
from amn_dist.interfaces import Fit
from amn_dist.loaders.order import batch_ordinals
from amn_dist.records import IGNORE, Batch
from amn_dist.stages.amn import AmnFit
from amn_dist.stages.icd import IcdFit
from amn_dist.training.loop import fit

SAMPLES, SIDE, CLASSES, STEPS = 18, 33, 4, 6
SECTION = {
    "backbone": {"name": "small", "stride": 8, "weights": None, "frozen_taps": 0},
    "crop": SIDE,
    "width": 8,
    "cam_head": "linear",
    "mask_padding": True,
    "warmup": 3,
    "steps": STEPS,
    "checkpoint_every": 3,
    "log_every": 1,
}
AMN = {name: SECTION[name] for name in ("backbone", "crop", "steps", "checkpoint_every", "log_every")}
# Adam would make steps of one size out of gradients that are nothing but rounding.
AMN |= {"optimiser": "sgd", "momentum_slip": False, "lr": 0.05, "lr_head": 0.05}


def sample(ordinal: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image f32[3, S, S], tags f32[K] and regions int32[S, S] of an ordinal; padding differs a lot."""
    random = torch.Generator().manual_seed(ordinal)
    regions = torch.arange(SIDE * SIDE, dtype=torch.int32).reshape(SIDE, SIDE) // (4 * SIDE)
    regions[SIDE - 8 * (ordinal % 4) :] = -1
    tags = torch.zeros(CLASSES - 1)
    tags[ordinal % (CLASSES - 1)] = 1
    tags[0] = max(float(tags[0]), float(ordinal % 5 == 0))
    return torch.randn(3, SIDE, SIDE, generator=random), tags, regions


def task_of(case: dict[str, Any]) -> Fit:
    """The Fit of a case."""
    name = case.get("fit", "discriminate")
    section = {**(AMN if name == "amn" else SECTION), "batch": 6, **case.get("section", {})}
    settings = Config.model_validate({"name": "x", name: section})
    return AmnFit(settings, CLASSES) if name == "amn" else IcdFit(settings, CLASSES)


def labels(regions: Tensor, fit: Fit) -> Tensor:
    """What a Fit learns from: regions, or classes uint8 made of them."""
    if fit.rule.label == "regions":
        return regions
    return torch.where(regions < 0, IGNORE, regions % CLASSES).to(torch.uint8)


def batches(fit: Fit, consumed: int, rank: int, world: int) -> Iterator[Batch]:
    """This rank's batches from a global sample on."""
    batch = fit.section.batch
    for step in count(consumed // batch):
        share = batch_ordinals([9, 9], seed=0, step=step, batch=batch, rank=rank, world=world).tolist()
        images, tags, regions = (torch.stack(part) for part in zip(*map(sample, share), strict=True))
        yield Batch(tuple(f"key{o}" for o in share), tuple(share), images, tags, labels(regions, fit))


def train(case: dict[str, Any]) -> None:
    """Run one case as the rank the environment says."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    folder = Path(case["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    task = task_of(case)

    def observe(record: dict[str, Any]) -> None:
        with (folder / f"curve-{rank}.jsonl").open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        if record.get("step") == case.get("stop_at"):
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        fit(
            task,
            lambda consumed: batches(task, consumed, rank, world),
            folder=folder,
            engine=EngineSection.model_validate({"name": case["engine"], "precision": case.get("precision", "fp32")}),
            seed=3,
            samples=SAMPLES,
            observe=observe,
        )
    except StageError:
        assert "stop_at" in case


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in json.loads(Path(sys.argv[1]).read_text()):
        train(row)
