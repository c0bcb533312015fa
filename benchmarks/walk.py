"""How much faster is the stencil walk than the published dense squaring, with the same result?

Dense squaring has all cores (or the device) and is timed at 47x63 and 63x84; at 94x125 and 120x160 it would take
minutes, so there its time is extrapolated with P^3 from 63x84. The stencil has one core.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor

from amn_dist.ops.walk.walk import random_walk, random_walks
from benchmarks.harness import Timing, one_core, race, write_result
from benchmarks.inputs import walk_scene
from benchmarks.reference.dense_walk import dense_walk

SMALL = ((47, 63), (63, 84))
LARGE = ((94, 125, 2), (94, 125, 3), (120, 160, 2), (120, 160, 3))
TARGETS_S = {94: 0.060, 120: 0.150}
BATCH = 64
TOLERANCE = 1e-4
"""Of the largest value, in float32 against float64."""


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.max())


def dense_times(device: str) -> tuple[dict[str, Any], Timing]:
    """Time and agreement of the dense form on small grids; the timing is that of the larger."""
    rows: dict[str, Any] = {}
    for height, width in SMALL:
        x, edge = walk_scene(height, width, 2, device=device)
        exact = dense_walk(x.double(), edge.double())
        found = error(random_walk(x, edge), exact)
        assert found < TOLERANCE, f"{height}x{width}: error {found}"
        timing = race({"dense": partial(dense_walk, x, edge)})["dense"]
        rows[f"{height}x{width}"] = {
            **timing.as_json(),
            "error_of_stencil": found,
            "error_of_dense": error(dense_walk(x, edge), exact),
        }
    return rows, timing


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    dense, slowest = dense_times("cpu")
    one_core()
    rows = {}
    for height, width, classes in LARGE:
        x, edge = walk_scene(height, width, classes, device="cpu")
        timing = race({"stencil": partial(random_walk, x, edge)}, rounds=9)["stencil"]
        extrapolated = slowest.median * (height * width / (SMALL[-1][0] * SMALL[-1][1])) ** 3
        rows[f"{height}x{width} K={classes}"] = {
            **timing.as_json(),
            "target_s": TARGETS_S[height],
            "dense_extrapolated_s": round(extrapolated, 1),
            "ratio": round(extrapolated / timing.median),
        }
    record: dict[str, Any] = {
        "question": "random walk: stencil on one core against dense squaring on all cores",
        "dense_cores": cores,
        "dense": dense,
        "stencil_one_core": rows,
    }
    if torch.cuda.is_available():
        record["device"] = on_the_device()
    write_result("walk", record)


def on_the_device() -> dict[str, Any]:
    """A batch of images against the dense form on the same device, and the bytes it cannot do without."""
    rows: dict[str, Any] = {"dense": dense_times("cuda")[0]}
    for height, width in ((94, 125), (120, 160)):
        scenes = [walk_scene(height, width, 2 + i % 2, device="cuda") for i in range(BATCH)]
        xs, edges = [x for x, _ in scenes], [edge for _, edge in scenes]
        for x, edge, walked in zip(xs[:4], edges, random_walks(xs, edges), strict=False):
            expected = random_walk(x.cpu(), edge.cpu()).double()
            found = error(walked.cpu(), expected)
            assert found < TOLERANCE, f"{height}x{width} on the device: error {found}"
        timing = race({"walks": partial(random_walks, xs, edges)}, rounds=9, warmup=2)["walks"]
        single = race({"dense": partial(dense_walk, xs[0], edges[0])}, rounds=5)["dense"]
        rows[f"{height}x{width}"] = {
            "walk_per_image": timing.as_json(per=BATCH),
            "dense_per_image": single.as_json(),
            "ratio": round(single.median / timing.median * BATCH),
            "link_bytes_per_image": 90 * 34 * height * width * 4,
        }
    return rows


if __name__ == "__main__":
    main()
