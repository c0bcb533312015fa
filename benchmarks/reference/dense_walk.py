"""The random walk as published: a dense transition matrix, squared log2(steps) times (amn 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from amn_dist.ops.paths import path_cells, path_directions


def transition_matrix(edge: Tensor, *, radius: int = 5, beta: float = 10.0) -> Tensor:
    """Column-normalised affinity [P, P] of an edge map [h, w] in [0, 1], P = h w."""
    height, width = edge.shape
    number = torch.arange(height * width, device=edge.device).view(height, width)
    affinity = torch.eye(height * width, dtype=edge.dtype, device=edge.device)
    for dy, dx in path_directions(radius):
        left, right, rows = max(0, -dx), width - max(0, dx), height - dy
        if rows <= 0 or right <= left:
            continue
        cells = [edge[y : y + rows, left + x : right + x] for y, x in path_cells((dy, dx))]
        value = (1 - torch.stack(cells).amax(0)) ** beta
        source = number[:rows, left:right].flatten()
        target = number[dy:, left + dx : right + dx].flatten()
        affinity[source, target] = affinity[target, source] = value.flatten()
    return affinity / affinity.sum(0, keepdim=True)


def dense_walk(activation: Tensor, edge: Tensor, *, radius: int = 5, beta: float = 10.0, squarings: int = 8) -> Tensor:
    """x (1 - E) T^(2^squarings), [K, h, w]; every squaring costs 2 P^3 operations."""
    power = transition_matrix(edge, radius=radius, beta=beta)
    for _ in range(squarings):
        power = power @ power
    start = (activation * (1 - edge)).flatten(1)
    return (start @ power).view(activation.shape)
