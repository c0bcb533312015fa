"""Maps of patches spread along attention, made doubly stochastic and never formed as a product (clip 5)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

EPSILON = 1e-7
"""Added to a range before something is divided by it (published)."""
NEIGHBOURS = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
"""Of a patch: the eight around it, in its own map."""


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
    if not maps.size:
        return masks
    levels = (maps * np.float32(255)).astype(np.uint8)
    floors = (threshold * levels.max((1, 2)).astype(np.float64)).astype(np.uint8)
    # Parts of all maps in one call: neighbours in a map touch, maps do not.
    parts, _ = ndimage.label(levels > floors[:, None, None], structure=NEIGHBOURS)
    for inside in ndimage.find_objects(parts):
        masks[inside] = True
    if cut:
        masks[:, -1], masks[:, :, -1] = False, False
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
