"""Seed pairs of a batch of photographs through the CRF on the device, against ours on one core."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.device.figures import Setting, row
from benchmarks.harness import race
from benchmarks.inputs import drawn_photo, two_labellings

KERNELS: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10), "iterations": 10}


def pairs(setting: Setting) -> dict[str, Any]:
    from amn_dist.ops.crf.dense import hard_label_unary
    from amn_dist.ops.crf.device import gaussian_batch, mean_field_batch
    from amn_dist.ops.crf.lattice import bilateral_lattice, gaussian_lattice
    from amn_dist.ops.crf.mean_field import mean_field

    torch.set_num_threads(1)
    batch = 2 if setting.tiny else 8
    photos = [drawn_photo(n, setting.size) for n in range(batch)]
    unaries = [hard_label_unary(two_labellings(n, setting.size), 3) for n in range(batch)]
    images = [torch.from_numpy(photo).to(setting.device) for photo in photos]
    energies = [torch.from_numpy(unary).flatten(0, 1).to(setting.device) for unary in unaries]
    on_device = partial(mean_field_batch, images, energies, labels=3, **KERNELS)
    compared = 2
    expected = [mean_field(photo, unary, **KERNELS) for photo, unary in zip(photos[:compared], unaries, strict=False)]
    record = agreement([q.cpu().numpy().reshape(expected[0].shape) for q in on_device()[:compared]], expected)
    forget = gaussian_batch.cache_clear
    if setting.device == "cuda":
        from amn_dist.ops.crf.kernel_lattice import gaussian_lattices

        forget = gaussian_lattices.cache_clear
    forget()
    timings = race(
        {
            "device": on_device,
            "one core": lambda: [mean_field(p, u, **KERNELS) for p, u in zip(photos[:compared], unaries, strict=False)],
        },
        rounds=max(setting.rounds, 1 if setting.tiny else 5),
    )
    points = [int(bilateral_lattice(photo, 50, 5).points) for photo in photos[:compared]]
    lattices = (int(gaussian_lattice(*setting.size, 3).points), round(float(np.mean(points))))
    moved = sum(moved_bytes(setting.size, lattices, groups=2, labels=3, iterations=KERNELS["iterations"]).values())
    rows = {"device": row(timings["device"], batch, moved=moved), "one core": row(timings["one core"], compared)}
    ratio = rows["one core"]["median_s"] / rows["device"]["median_s"]
    return {"batch": batch, "points": points, **record, **rows, "ratio": round(ratio, 2)}


def moved_bytes(
    size: tuple[int, int], points: tuple[int, int], *, groups: int, labels: int, iterations: int
) -> dict[str, int]:
    """Bytes that the kernels read and write for one image, as if no cache held any: building, filtering, updating.

    points: of the lattices over positions and over colours (ops/crf/kernel_lattice.py). Sorting takes eight passes over
    keys and places of 8 bytes each.
    """
    pixels = -(-size[0] * size[1] // 4) * 4
    channels = groups * (labels - 1)
    building = filtering = 0
    for vertices, count in zip((3, 6), points, strict=True):
        entries = pixels * vertices
        sorting = entries * (8 + 8) * 2 * 8
        numbering = entries * (12 + 13 + 44 + 12 + 8 + 16)
        neighbours = count * 2 * vertices * (8 + 8 + 4)
        building += sorting + numbering + neighbours + 2 * _filtered(pixels, vertices, count, 1)
        filtering += iterations * _filtered(pixels, vertices, count, channels)
    updating = (iterations + 1) * pixels * 4 * (groups * labels + 2 * channels + 1)
    return {"building": building, "filtering": filtering, "updating": updating}


def _filtered(pixels: int, vertices: int, points: int, channels: int) -> int:
    """Bytes of one filter: every entry is splatted and sliced, every point is summed, and blurred along all axes."""
    row, entries = 4 * channels, pixels * vertices
    chunks = points + entries // 64
    return (
        2 * entries * (8 + row)
        + chunks * (4 + 2 * row)
        + points * (4 + row)
        + vertices * points * (8 + 4 * row)
        + 2 * pixels * row
    )


def agreement(found: list[np.ndarray], expected: list[np.ndarray]) -> dict[str, float]:
    """Largest difference of marginals, share of equal labels; fails where they are too far apart."""
    difference = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    equal = [one.argmax(-3) == other.argmax(-3) for one, other in zip(found, expected, strict=True)]
    share = float(np.mean(equal))
    assert difference <= 1e-3 and share >= 0.9999, f"marginals differ by {difference}, {share:.4%} of labels equal"
    return {"largest_difference": difference, "equal_labels": share}
