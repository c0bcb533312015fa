"""Directions from a cell to its neighbours, and the cells on the way (amn 2.5)."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

Cell = tuple[int, int]
"""Offset (dy, dx) from the source of a pair."""


def path_directions(radius: int) -> list[Cell]:
    """Directions (dy, dx) shorter than the radius in the lower half plane, in the published order.

    They are grouped by the number of cells on their path; groups ascend, directions keep their raster order inside.
    """
    return list(directions(radius))


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
    paths = [path_cells(direction) for direction in directions(radius)]
    begins = np.cumsum([0, *(len(path) for path in paths)])
    return np.array(directions(radius)), np.array([cell for path in paths for cell in path]), begins


@cache
def path_tensors(radius: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """path_table as int32 tensors on a device, copied there once."""
    table = (torch.from_numpy(values).to(device, torch.int32).contiguous() for values in path_table(radius))
    return tuple(table)  # type: ignore[return-value]


@cache
def directions(radius: int) -> tuple[Cell, ...]:
    """path_directions as a tuple, which is kept."""
    reach = range(-radius + 1, radius)
    plane = [(0, x) for x in range(1, radius)]
    plane += [(y, x) for y in range(1, radius) for x in reach if x * x + y * y < radius * radius]
    return tuple(sorted(plane, key=lambda direction: len(path_cells(direction))))
