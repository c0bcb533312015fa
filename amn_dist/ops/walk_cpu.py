"""The random walk on one CPU core: a stencil over the padded grid, compiled by numba."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from amn_dist.ops.affinity import path_table
from amn_dist.ops.chebyshev import chebyshev_coefficients


def walk(x: np.ndarray, edge: np.ndarray, *, radius: int, beta: float, steps: int) -> np.ndarray:
    """x T^steps, f32[K, h, w]. x: f32[K, h, w]. edge: f32[h, w] in [0, 1]."""
    directions, cells, begins = path_table(radius)
    reach = radius - 1
    classes, height, width = x.shape
    links, degree = _links(edge.astype(np.float32), directions, cells, begins, beta, reach)
    root = np.sqrt(degree)
    # float32 maps would lose 8e-5 of the maximum to rounding; float32 links lose a tenth of that.
    start = np.zeros((classes, height + 2 * reach, width + 2 * reach))
    inside = (slice(None), slice(reach, reach + height), slice(reach, reach + width))
    start[inside] = x * root
    loops = (1 / degree).astype(np.float32)
    coefficients = chebyshev_coefficients(steps)
    return (_chebyshev(start, links, loops, directions, coefficients, reach)[inside] / root).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _links(edge, directions, cells, begins, beta, reach):  # type: ignore[no-untyped-def]
    """Normalised affinity of every cell to its forward neighbours on the padded grid, and the degrees f64[h, w].

    A cell is linked to itself with 1; a path out of the image has affinity 0.
    """
    height, width = edge.shape
    count = len(directions)
    links = np.zeros((count, height + 2 * reach, width + 2 * reach), np.float32)
    degree = np.ones((height, width), np.float64)
    for d in range(count):
        dy, dx = directions[d]
        for y in range(height - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                strongest = np.float32(0)
                for c in range(begins[d], begins[d + 1]):
                    strongest = max(strongest, edge[y + cells[c, 0], x + cells[c, 1]])
                value = (1.0 - strongest) ** beta
                links[d, y + reach, x + reach] = value
                degree[y, x] += value
                degree[y + dy, x + dx] += value
    for d in range(count):
        dy, dx = directions[d]
        for y in range(height - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                links[d, y + reach, x + reach] /= math.sqrt(degree[y, x] * degree[y + dy, x + dx])
    return links, degree


@njit(cache=True, nogil=True, error_model="numpy")
def _product(x, y, links, loops, directions, reach):  # type: ignore[no-untyped-def]
    """y = S x on the padded grid, row by row so that a row's links stay in cache for all classes."""
    height, width = loops.shape
    for row in range(height):
        r = row + reach
        for k in range(x.shape[0]):
            out = y[k, r, reach : reach + width]
            own = x[k, r, reach : reach + width]
            for i in range(width):
                out[i] = loops[row, i] * own[i]
        for d in range(len(directions)):
            dy, dx = directions[d]
            ahead = links[d, r, reach : reach + width]
            behind = links[d, r - dy, reach - dx : reach - dx + width]
            for k in range(x.shape[0]):
                out = y[k, r, reach : reach + width]
                far = x[k, r + dy, reach + dx : reach + dx + width]
                near = x[k, r - dy, reach - dx : reach - dx + width]
                for i in range(width):
                    out[i] += ahead[i] * far[i] + behind[i] * near[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _chebyshev(start, links, loops, directions, coefficients, reach):  # type: ignore[no-untyped-def]
    """sum_k coefficients[k] T_k(S) start."""
    before, now = start.copy(), np.zeros_like(start)
    total = coefficients[0] * start
    if len(coefficients) == 1:
        return total
    _product(start, now, links, loops, directions, reach)
    total += coefficients[1] * now
    after = np.zeros_like(start)
    for k in range(2, len(coefficients)):
        _product(now, after, links, loops, directions, reach)
        after *= 2
        after -= before
        if coefficients[k] != 0:
            total += coefficients[k] * after
        before, now, after = now, after, before
    return total
