"""Maps of patches spread along attention, made doubly stochastic and never formed as a product (clip 5)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

EPSILON = 1e-7
"""Added to a range before something is divided by it (published)."""


def positive_maps(raw: Tensor) -> Tensor:
    """Maps [..., P] over their ranges, negative parts cut off.

    Twice: the second pass undoes most of what EPSILON takes from maps whose peak is far below it.
    """
    return stretched(stretched(raw.clamp(min=0)))


def stretched(maps: Tensor) -> Tensor:
    """Each map [..., P] over its range of values."""
    low = maps.amin(-1, keepdim=True)
    return (maps - low) / (EPSILON + (maps.amax(-1, keepdim=True) - low))


def box_masks(maps: np.ndarray, threshold: float, *, cut: bool = True) -> np.ndarray:
    """Where the boxes around the connected strong parts of maps f32[K, h, w] in [0, 1] lie: bool[K, h, w].

    threshold: share of the peak, in steps of 1/255. cut: boxes end before the last row and column, as published.
    """
    masks = np.zeros(maps.shape, bool)
    height, width = maps.shape[1:]
    for levels, mask in zip((maps * np.float32(255)).astype(np.uint8), masks, strict=True):
        strong = levels > int(threshold * levels.max())
        parts, _ = ndimage.label(strong, structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(parts):
            mask[rows, columns] = True
    if cut and height and width:
        masks[:, height - 1], masks[:, :, width - 1] = False, False
    return masks


def balance(weights: Tensor, rounds: int = 3) -> tuple[Tensor, Tensor]:
    """Factors [..., P] of the rows and columns of weights [..., P, P] after rounds of Sinkhorn's method: columns first,
    then rows."""
    rows = torch.ones_like(weights[..., 0, None])
    for _ in range(rounds):
        columns = 1 / (weights.mT @ rows)
        rows = 1 / (weights @ columns)
    return rows[..., 0], columns[..., 0]


def spread(weights: Tensor, maps: Tensor, inside: Tensor, rounds: int = 3) -> Tensor:
    """Maps [..., K, P] of sources inside boxes [..., K, P], moved twice along balanced, symmetric weights [..., P, P].

    With D the balanced weights and T = (D + D^T) / 2 that is T (T x), in products of a matrix and K vectors.
    """
    rows, columns = (factors[..., None] for factors in balance(weights, rounds))
    moved = torch.where(inside, maps, 0).mT
    for _ in range(2):
        moved = (rows * (weights @ (columns * moved)) + columns * (weights.mT @ (rows * moved))) / 2
    return moved.mT
