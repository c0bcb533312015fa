"""Labels as polygons along the edges of pixels: drawn again they give the same labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Right, down, left, up, as (row, column): an edge of a pixel, with the pixel on its right."""


def parts(region: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The parts of a region bool[H, W] that touch by sides: for each its outer loop, then the loops of its holes.

    A loop is int[N, 2] of corners (x, y) in pixels, 0 at the edge of the picture; no three lie on a line.
    """
    numbers, count = ndimage.label(region)
    for number, box in enumerate(ndimage.find_objects(numbers, count), 1):
        loops = list(_loops(numbers[box] == number))
        offset = (box[1].start, box[0].start)
        yield [loop + offset for loop in loops]


def joined(loops: list[np.ndarray]) -> np.ndarray:
    """A part as one loop int[N, 2]: holes hang on their surroundings by a cut, an edge that is gone along twice.

    Filled by the even-odd rule it is the part with its holes.
    """
    whole, *holes = loops
    for hole in holes:
        distances = np.abs(whole[:, None].astype(np.int64) - hole[None]).sum(2)
        at, start = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([np.roll(hole, -start, axis=0), hole[start : start + 1]])
        whole = np.concatenate([whole[: at + 1], around, whole[at:]])
    return whole


def _loops(part: np.ndarray) -> Iterator[np.ndarray]:
    """Loops around a part bool[H, W] and around its holes, the outer one first: the first of all corners is on it."""
    edges = _edges(part)
    for corner in sorted(edges):
        while directions := edges[corner]:
            yield _follow(edges, corner, directions[0])


def _edges(part: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Directions of the edges that leave a corner (row, column), for every corner on a border."""
    padded = np.pad(part, 1)
    inside, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    starts = (
        np.argwhere(inside & ~above),
        np.argwhere(~inside & left),
        np.argwhere(~inside & above) + np.array([0, 1]),
        np.argwhere(inside & ~left) + np.array([1, 0]),
    )
    edges: dict[tuple[int, int], list[int]] = {}
    for direction, corners in enumerate(starts):
        for row, column in corners.tolist():
            edges.setdefault((row, column), []).append(direction)
    return edges


def _follow(edges: dict[tuple[int, int], list[int]], start: tuple[int, int], direction: int) -> np.ndarray:
    """One loop, its edges taken out; where two pixels touch by a corner it stays with the pixel it is at."""
    corner, first, turns = start, direction, []
    while direction in edges[corner]:
        edges[corner].remove(direction)
        corner = (corner[0] + STEPS[direction][0], corner[1] + STEPS[direction][1])
        following = [turn % 4 for turn in (direction + 1, direction, direction - 1) if turn % 4 in edges[corner]]
        if corner == start and not following:
            break
        before, direction = direction, following[0]
        if direction != before:
            turns.append(corner)
    if direction != first or not turns:
        turns.append(start)
    return np.array(turns)[:, ::-1]
