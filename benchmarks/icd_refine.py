"""How much faster are scores averaged inside superpixels by index than by one resized indicator map a region?

A training batch of ICD: crops of 321 with a few hundred superpixels, 20 classes, a grid of 41x41. Both on one core, and
on the device where there is one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from amn_dist.ops.region_means import refine_scores
from benchmarks.harness import one_core, race, write_result
from benchmarks.reference.dense_refine import dense_refine

BATCH, CLASSES, SIDE, CELLS, REGIONS = 4, 20, 321, 41, 250
TOLERANCE = 1e-5


def example(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, tags of one to three classes, and regions that are the cells of random points."""
    random = torch.Generator().manual_seed(0)
    score = torch.randn(BATCH, CLASSES, CELLS, CELLS, generator=random)
    tags = torch.zeros(BATCH, CLASSES)
    for n in range(BATCH):
        tags[n, torch.randperm(CLASSES, generator=random)[: 1 + n % 3]] = 1
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), -1).reshape(-1, 2)
    points = torch.rand(BATCH, REGIONS, 2, generator=random) * SIDE
    regions = torch.stack([torch.cdist(grid.float(), p).argmin(1) for p in points]).view(BATCH, SIDE, SIDE)
    return score.to(device), tags.to(device), regions.to(device)


def rivals(device: str) -> dict[str, Any]:
    """Timings of both, after their results were found equal."""
    inputs = example(device)
    error = float((refine_scores(*inputs) - dense_refine(*inputs)).abs().max())
    assert error < TOLERANCE, f"{device}: error {error}"
    found = race({"by_index": partial(refine_scores, *inputs), "dense": partial(dense_refine, *inputs)}, rounds=9)
    ratio = round(found["dense"].median / found["by_index"].median, 1)
    rows = {name: timing.as_json(per=BATCH) for name, timing in found.items()}
    return {**rows, "ratio": ratio, "largest_difference": error}


def main() -> None:
    one_core()
    record: dict[str, Any] = {"question": "superpixel refinement by index against dense", "one_core": rivals("cpu")}
    if torch.cuda.is_available():
        record["device"] = rivals("cuda")
    write_result("icd_refine", record)


if __name__ == "__main__":
    main()
