"""Pairs of cells and the edges between them (amn 2.5, 3.3).

D directions, N = (h - r) * (w - 2 r) sources with r = radius - 1: rows [0, h - r), columns [r, w - r).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amn_dist.records import IGNORE

Cell = tuple[int, int]
"""Offset (dy, dx) from the source of a pair."""


def path_directions(radius: int) -> list[Cell]:
    """Directions (dy, dx) shorter than the radius in the lower half plane, in the published order.

    They are grouped by the number of cells on their path; groups ascend, directions keep their raster order inside.
    """
    return list(_directions(radius))


@cache
def path_cells(direction: Cell) -> tuple[Cell, ...]:
    """Cells (dy, dx) nearer than one to the line from the origin to the direction, inside their bounding box.

    Both ends are on it; distance is perpendicular and compared squared. The farthest come first, as published.
    """
    dy, dx = direction
    rows = range(min(0, dy), max(0, dy) + 1)
    columns = range(min(0, dx), max(0, dx) + 1)
    cells = [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]
    return tuple(sorted(cells, key=lambda cell: -abs(cell[0]) - abs(cell[1])))


@cache
def path_table(radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions int64[D, 2], path cells of all directions int64[cells, 2], and where each direction's begin."""
    directions = list(_directions(radius))
    paths = [path_cells(direction) for direction in directions]
    begins = np.cumsum([0, *(len(path) for path in paths)])
    return np.array(directions), np.array([cell for path in paths for cell in path]), begins


def pair_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of every pair: one minus the strongest edge on its path, edge[B, h, w] in [0, 1] -> [B, D, N].

    Differentiable once, with the same result every time; of cells that tie, the first on the path gets the gradient.
    """
    affinity: Tensor = _PairAffinity.apply(edge, radius)
    return affinity


def pair_labels(labels: Tensor, radius: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs attract and which repel, from labels uint8[B, h, w]; three bool[B, D, N] on their device.

    Equal background, equal foreground, different. A pair with a label of num_classes or more is in none.
    """
    valid = labels < min(num_classes, IGNORE)
    source, source_valid = (window(x, (0, 0), radius).flatten(1)[:, None] for x in (labels, valid))
    target, target_valid = (
        torch.stack([window(x, d, radius).flatten(1) for d in _directions(radius)], 1) for x in (labels, valid)
    )
    both = source_valid & target_valid
    equal = both & (source == target)
    return equal & (source == 0), equal & (source > 0), both & (source != target)


def window(x: Tensor, offset: Cell, radius: int) -> Tensor:
    """The cells at an offset from every source, a view [..., rows, columns] of x[..., h, w]."""
    reach = radius - 1
    rows, columns = max(x.shape[-2] - reach, 0), max(x.shape[-1] - 2 * reach, 0)
    top, left = offset[0], reach + offset[1]
    return x[..., top : top + rows, left : left + columns]


@cache
def _directions(radius: int) -> tuple[Cell, ...]:
    reach = range(-radius + 1, radius)
    plane = [(0, x) for x in range(1, radius)]
    plane += [(y, x) for y in range(1, radius) for x in reach if x * x + y * y < radius * radius]
    return tuple(sorted(plane, key=lambda direction: len(path_cells(direction))))


class _PairAffinity(torch.autograd.Function):
    """Keeps the edge and the result alone: a recorded maximum would keep one window per cell of every path."""

    @staticmethod
    def forward(ctx: Any, edge: Tensor, radius: int) -> Tensor:
        directions = _directions(radius)
        strongest = edge.new_empty(len(edge), len(directions), *window(edge, (0, 0), radius).shape[1:])
        for d, direction in enumerate(directions):
            _path_maximum(edge, direction, radius, out=strongest[:, d])
        ctx.radius = radius
        ctx.save_for_backward(edge, strongest)
        return (1 - strongest).flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        edge, strongest = ctx.saved_tensors
        gradient = gradients[0].reshape(strongest.shape)
        total = torch.zeros_like(edge, dtype=torch.promote_types(edge.dtype, torch.float32))
        for d, direction in enumerate(_directions(ctx.radius)):
            remaining = -gradient[:, d]
            for cell in path_cells(direction):
                strongest_here = window(edge, cell, ctx.radius) == strongest[:, d]
                window(total, cell, ctx.radius).add_(remaining * strongest_here)
                remaining = remaining.masked_fill(strongest_here, 0)
        return total.to(edge.dtype), None


def _path_maximum(edge: Tensor, direction: Cell, radius: int, *, out: Tensor) -> None:
    first, *others = path_cells(direction)
    out.copy_(window(edge, first, radius))
    for cell in others:
        torch.maximum(out, window(edge, cell, radius), out=out)
