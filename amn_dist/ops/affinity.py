"""Pairs of cells and the edges between them (amn 2.5, 3.3).

D directions, N = (h - r) * (w - 2 r) sources with r = radius - 1: rows [0, h - r), columns [r, w - r).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amn_dist.ops.paths import Cell, directions, path_cells, path_directions
from amn_dist.records import IGNORE

__all__ = ["pair_affinity", "pair_labels", "path_directions", "window"]


def pair_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of every pair: one minus the strongest edge on its path, edge[B, h, w] in [0, 1] -> [B, D, N].

    Differentiable once, with the same result every time; of cells that tie, the first on the path gets the gradient.
    """
    affinity: Tensor
    if edge.device.type != "cpu":
        from amn_dist.ops.kernels.affinity import PairAffinity

        affinity = PairAffinity.apply(edge, radius)
    else:
        affinity = _PairAffinity.apply(edge, radius)
    return affinity


def pair_labels(labels: Tensor, radius: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs attract and which repel, from labels uint8[B, h, w]; three bool[B, D, N] on their device.

    Equal background, equal foreground, different. A pair with a label of num_classes or more is in none.
    """
    if labels.device.type != "cpu":
        from amn_dist.ops.kernels.affinity import pair_kinds

        return pair_kinds(labels, radius, min(num_classes, IGNORE))
    valid = labels < min(num_classes, IGNORE)
    source, source_valid = (window(x, (0, 0), radius).flatten(1)[:, None] for x in (labels, valid))
    target, target_valid = (
        torch.stack([window(x, d, radius).flatten(1) for d in directions(radius)], 1) for x in (labels, valid)
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


class _PairAffinity(torch.autograd.Function):
    """Keeps the edge and the result alone: a recorded maximum would keep one window per cell of every path."""

    @staticmethod
    def forward(ctx: Any, edge: Tensor, radius: int) -> Tensor:
        listed = directions(radius)
        strongest = edge.new_empty(len(edge), len(listed), *window(edge, (0, 0), radius).shape[1:])
        for d, direction in enumerate(listed):
            _path_maximum(edge, direction, radius, out=strongest[:, d])
        ctx.radius = radius
        ctx.save_for_backward(edge, strongest)
        return (1 - strongest).flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        edge, strongest = ctx.saved_tensors
        gradient = gradients[0].reshape(strongest.shape)
        total = torch.zeros_like(edge, dtype=torch.promote_types(edge.dtype, torch.float32))
        for d, direction in enumerate(directions(ctx.radius)):
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
