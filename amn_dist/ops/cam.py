"""Per-scale network outputs to activation maps of the tagged classes (amn 1.2, 1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.arrays import as_array
from amn_dist.ops.resize import resize_label
from amn_dist.ops.softmax import mean_softmax
from amn_dist.records import grid_size

EPSILON = 1e-5
"""Added to every maximum and range that is divided by."""

Values = Tensor | np.ndarray
Maps = tuple[np.ndarray, np.ndarray, np.ndarray]
"""classes uint8[K] (1-based), coarse f32[K, h, w], fine f32[K, H, W]."""


def merge_cam(per_scale: Sequence[Values], tags: Values, size: tuple[int, int], *, stride: int = 16) -> Maps:
    """Class activation maps from the flip-summed maps f32[C-1, hs, ws] of every scale, computed where they lie.

    tags: [C-1] multi-hot. size: (H, W). stride: pixels per cell of the network; the fine map is laid over whole cells
    and cropped. Sum over scales, then each class over its own maximum, apart for coarse and fine.
    """
    height, width = size
    present, grid = np.flatnonzero(as_array(tags)), grid_size(height, width)
    if not len(present):
        return _empty_maps(grid, size)
    chosen = [torch.as_tensor(maps)[present].float() for maps in per_scale]
    whole = (-(-height // stride) * stride, -(-width // stride) * stride)
    coarse = _max_normalised(_resized_sum(chosen, grid))
    fine = _max_normalised(_resized_sum(chosen, whole)[:, :height, :width])
    return (present + 1).astype(np.uint8), as_array(coarse), as_array(fine)


def merge_amn(
    per_scale: Sequence[Values], tags: Values, seed: Values, size: tuple[int, int], *, gate: bool = True
) -> Maps:
    """AMN's maps from the flip-averaged logits f32[C, hs, ws] of every scale, background dropped.

    tags: [C-1] multi-hot. seed: uint8[H, W], labels AMN was trained on. size: (H, W). Softmax over all C classes of
    the mean logits, stretched to [0, 1] class by class; with gate, raw where the seed says background.
    """
    present, grid = np.flatnonzero(as_array(tags)), grid_size(*size)
    if not len(present):
        return _empty_maps(grid, size)
    logits = [torch.as_tensor(maps).float() for maps in per_scale]
    labels = as_array(seed)
    coarse = _min_max_normalised(mean_softmax(logits, present + 1, grid), resize_label(labels, grid) if gate else None)
    fine = _min_max_normalised(mean_softmax(logits, present + 1, size), labels if gate else None)
    return (present + 1).astype(np.uint8), as_array(coarse), as_array(fine)


def _empty_maps(grid: tuple[int, int], size: tuple[int, int]) -> Maps:
    """The maps of an image without tags."""
    return np.zeros(0, np.uint8), np.zeros((0, *grid), np.float32), np.zeros((0, *size), np.float32)


def _resized_sum(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    total = torch.zeros(len(maps[0]), *size, device=maps[0].device)
    for scale_maps in maps:
        total += functional.interpolate(scale_maps[None], size=size, mode="bilinear", align_corners=False)[0]
    return total


def _max_normalised(maps: Tensor) -> Tensor:
    return maps / (maps.amax((1, 2), keepdim=True) + EPSILON)


def _min_max_normalised(probabilities: Tensor, seed: np.ndarray | None) -> Tensor:
    """Each class over its range of values; left as it is where a seed says background."""
    low, high = probabilities.amin((1, 2), keepdim=True), probabilities.amax((1, 2), keepdim=True)
    stretched = (probabilities - low) / (high - low + EPSILON)
    if seed is None:
        return stretched
    return torch.where(torch.from_numpy(seed == 0).to(stretched.device), probabilities, stretched)
