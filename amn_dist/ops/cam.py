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
from amn_dist.ops.transfer import to_device
from amn_dist.records import grid_size

EPSILON = 1e-5
"""Added to every maximum and range that is divided by."""

Values = Tensor | np.ndarray
Maps = tuple[np.ndarray, np.ndarray, np.ndarray]
"""classes uint8[K] (1-based), coarse f32[K, h, w], fine f32[K, H, W]."""
Pair = tuple[Tensor, Tensor]
"""Coarse f32[K, h, w] and fine f32[K, H, W]."""


def merge_cam(per_scale: Sequence[Values], tags: Values, size: tuple[int, int], *, stride: int = 16) -> Maps:
    """Class activation maps from the flip-summed maps f32[C-1, hs, ws] of every scale, computed where they lie.

    tags: [C-1] multi-hot. size: (H, W). stride: pixels per cell of the network; the fine map is laid over whole cells
    and cropped. Sum over scales, then each class over its own maximum, apart for coarse and fine.
    """
    present, tensors = np.flatnonzero(as_array(tags)), [torch.as_tensor(maps) for maps in per_scale]
    coarse, fine = cam_maps(tensors, to_device(present, tensors[0].device), size, stride=stride)
    return (present + 1).astype(np.uint8), as_array(coarse), as_array(fine)


def cam_maps(per_scale: Sequence[Tensor], present: Tensor, size: tuple[int, int], *, stride: int) -> Pair:
    """merge_cam's maps of the places `present` i64[K] among the classes, all on one device."""
    height, width = size
    if not len(present):
        return _empty_maps(size, per_scale[0].device)
    chosen = [maps[present].float() for maps in per_scale]
    whole = (-(-height // stride) * stride, -(-width // stride) * stride)
    coarse = _max_normalised(_resized_sum(chosen, grid_size(height, width)))
    return coarse, _max_normalised(_resized_sum(chosen, whole)[:, :height, :width])


def merge_amn(
    per_scale: Sequence[Values], tags: Values, seed: Values, size: tuple[int, int], *, gate: bool = True
) -> Maps:
    """AMN's maps from the flip-averaged logits f32[C, hs, ws] of every scale, background dropped.

    tags: [C-1] multi-hot. seed: uint8[H, W], labels AMN was trained on. size: (H, W). Softmax over all C classes of
    the mean logits, stretched to [0, 1] class by class; with gate, raw where the seed says background.
    """
    classes, logits = np.flatnonzero(as_array(tags)) + 1, [torch.as_tensor(maps).float() for maps in per_scale]
    device = logits[0].device
    gates = tuple(to_device(closed, device) for closed in closed_cells(as_array(seed), size)) if gate else None
    coarse, fine = amn_maps(logits, to_device(classes, device), size, gates=gates)
    return classes.astype(np.uint8), as_array(coarse), as_array(fine)


def amn_maps(
    logits: Sequence[Tensor], classes: Tensor, size: tuple[int, int], *, gates: tuple[Tensor, ...] | None
) -> Pair:
    """merge_amn's maps of classes i64[K], all on one device. gates: closed_cells of the seed, or None."""
    if not len(classes):
        return _empty_maps(size, logits[0].device)
    coarse, fine = (mean_softmax(logits, classes, target) for target in (grid_size(*size), size))
    raw = (None, None) if gates is None else gates
    return _min_max_normalised(coarse, raw[0]), _min_max_normalised(fine, raw[1])


def closed_cells(seed: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where a seed says background, on the stride-4 grid and at the size of the image: bool[h, w], bool[H, W]."""
    return resize_label(seed, grid_size(*size)) == 0, seed == 0


def _empty_maps(size: tuple[int, int], device: torch.device) -> Pair:
    """The maps of an image without tags."""
    return torch.zeros(0, *grid_size(*size), device=device), torch.zeros(0, *size, device=device)


def _resized_sum(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    total = torch.zeros(len(maps[0]), *size, device=maps[0].device)
    for scale_maps in maps:
        total += functional.interpolate(scale_maps[None], size=size, mode="bilinear", align_corners=False)[0]
    return total


def _max_normalised(maps: Tensor) -> Tensor:
    return maps / (maps.amax((1, 2), keepdim=True) + EPSILON)


def _min_max_normalised(probabilities: Tensor, raw: Tensor | None) -> Tensor:
    """Each class over its range of values; left as it is where `raw` says so."""
    low, high = probabilities.amin((1, 2), keepdim=True), probabilities.amax((1, 2), keepdim=True)
    stretched = (probabilities - low) / (high - low + EPSILON)
    return stretched if raw is None else torch.where(raw, probabilities, stretched)
