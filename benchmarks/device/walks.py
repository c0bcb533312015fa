"""The random walk of a batch on the device, against dense squaring there; checked against float64 on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from amn_dist.ops.walk.chebyshev import chebyshev_coefficients
from benchmarks.device.figures import Setting, row
from benchmarks.harness import race
from benchmarks.inputs import walk_scene
from benchmarks.reference.dense_walk import dense_walk

TOLERANCE = 1e-4
"""Of the largest value."""
GRIDS = ((94, 125), (120, 160))
"""Of VOC's and COCO's photographs."""


def walks(setting: Setting) -> dict[str, Any]:
    from amn_dist.ops.walk.gpu import walks as batched

    steps, small = (16, (6, 9)) if setting.tiny else (256, (32, 40))
    walk = partial(batched, radius=5, beta=10.0, steps=steps)
    record: dict[str, Any] = {"error": checked(walk, small, steps.bit_length() - 1, setting.device)}
    batch = 2 if setting.tiny else 64
    for height, width in [(6, 9)] if setting.tiny else GRIDS:
        scenes = [walk_scene(height, width, 2 + i % 2, device=setting.device) for i in range(batch)]
        xs, edges = [x for x, _ in scenes], [edge for _, edge in scenes]
        timing = race({"ours": partial(walk, xs, edges)}, rounds=setting.rounds, warmup=1 if setting.tiny else 3)[
            "ours"
        ]
        squarings = steps.bit_length() - 1
        dense = race(
            {"dense": partial(dense_walk, xs[0], edges[0], squarings=squarings)}, rounds=1 if setting.tiny else 5
        )
        # Each product reads 34 links of every cell once, whatever is kept of the maps.
        moved = (len(chebyshev_coefficients(steps)) - 1) * 34 * height * width * 4
        record[f"{height}x{width}"] = {
            "batch": batch,
            "ours": row(timing, batch, moved=moved),
            "published": row(dense["dense"], 1, flops=2 * squarings * (height * width) ** 3),
            "ratio": round(dense["dense"].median / timing.median * batch, 1),
        }
    return record


def checked(walk: Any, grid: tuple[int, int], squarings: int, device: str) -> float:
    """Largest error over the largest value, of images with two, three and five classes; fails above TOLERANCE."""
    scenes = [walk_scene(*grid, classes, device=device) for classes in (2, 3, 5)]
    found = walk([x for x, _ in scenes], [edge for _, edge in scenes])
    errors = []
    for (x, edge), walked in zip(scenes, found, strict=True):
        expected: Tensor = dense_walk(x.cpu().double(), edge.cpu().double(), squarings=squarings)
        errors.append(float((walked.cpu().double() - expected).abs().max() / expected.max()))
    assert max(errors) < TOLERANCE, f"walk on {device}: error {max(errors)} of the largest value"
    return max(errors)
