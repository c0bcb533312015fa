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
    from amn_dist.ops.crf.lattice import bilateral_lattice
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
    gaussian_batch.cache_clear()
    timings = race(
        {
            "device": on_device,
            "one core": lambda: [mean_field(p, u, **KERNELS) for p, u in zip(photos[:compared], unaries, strict=False)],
        },
        rounds=max(setting.rounds, 1 if setting.tiny else 5),
    )
    rows = {"device": row(timings["device"], batch), "one core": row(timings["one core"], compared)}
    points = [int(bilateral_lattice(photo, 50, 5).points) for photo in photos[:compared]]
    ratio = rows["one core"]["median_s"] / rows["device"]["median_s"]
    return {"batch": batch, "points": points, **record, **rows, "ratio": round(ratio, 2)}


def agreement(found: list[np.ndarray], expected: list[np.ndarray]) -> dict[str, float]:
    """Largest difference of marginals, share of equal labels; fails where they are too far apart."""
    difference = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    equal = [one.argmax(-3) == other.argmax(-3) for one, other in zip(found, expected, strict=True)]
    share = float(np.mean(equal))
    assert difference <= 1e-3 and share >= 0.9999, f"marginals differ by {difference}, {share:.4%} of labels equal"
    return {"largest_difference": difference, "equal_labels": share}
