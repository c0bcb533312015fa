"""The random walk on one CPU core: a stencil over the padded grid, compiled by numba."""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from amn_dist.ops.paths import path_table
from amn_dist.ops.walk.chebyshev import chebyshev_coefficients

LANES = 32
"""Rows are padded to whole multiples: the compiled loops take that many cells at once, the rest one by one."""


def walk(x: np.ndarray, edge: np.ndarray, *, radius: int, beta: float, steps: int) -> np.ndarray:
    """x T^steps, f32[K, h, w]. x: f32[K, h, w]. edge: f32[h, w] in [0, 1]."""
    directions, cells, begins = path_table(radius)
    reach = radius - 1
    width = edge.shape[1]
    more = -width % LANES
    margin = (reach, reach), (reach, reach + more)
    # The weakest cell of a path decides before the power as after it. Cells out of the image let nothing through.
    clear = np.pad(((1.0 - edge) ** beta).astype(np.float32), margin)
    links = _links(clear, directions, cells, begins, reach)
    shares = (1 / (1 + _sum_links(links, directions, reach))).astype(np.float32)
    start = np.pad(x.astype(np.float32), ((0, 0), *margin))
    coefficients = chebyshev_coefficients(steps).astype(np.float32)
    return _chebyshev(start, links, shares, directions, coefficients, reach)[..., :width]


@njit(cache=True, nogil=True, error_model="numpy")
def _links(clear, directions, cells, begins, reach):  # type: ignore[no-untyped-def]
    """Affinity of every cell to its forward neighbours on the padded grid, f32[rows, D, columns]."""
    rows, columns = clear.shape
    links = np.zeros((rows, len(directions), columns), np.float32)
    for row in range(reach, rows - reach):
        for d in range(len(directions)):
            link = links[row, d, reach : columns - reach]
            link[:] = clear[row, reach : columns - reach]
            for c in range(begins[d], begins[d + 1]):
                left = reach + cells[c, 1]
                cell = clear[row + cells[c, 0], left : left + len(link)]
                for i in range(len(link)):
                    link[i] = min(link[i], cell[i])
    return links


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_links(links, directions, reach):  # type: ignore[no-untyped-def]
    """Sum of every cell's links to its neighbours, forward and backward, f64[h, w]."""
    height, width = len(links) - 2 * reach, links.shape[2] - 2 * reach
    total = np.zeros((height, width))
    for row in range(height):
        r = row + reach
        for d in range(len(directions)):
            dy, dx = directions[d]
            for i in range(width):
                total[row, i] += links[r, d, reach + i] + links[r - dy, d, reach - dx + i]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _chebyshev(now, links, shares, directions, coefficients, reach):  # type: ignore[no-untyped-def]
    """sum_k coefficients[k] T_k(P) now, P the affinity over its row sums, of which shares are the inverse.

    Kept are T_k and its change T_{k+1} - T_k, which grows by 2 (P - 1) T_k, a sum over differences of neighbours: where
    the recurrence amplifies rounding, these are small, so float32 is enough.
    """
    height, width = shares.shape
    classes, rows, columns = now.shape
    count = len(directions)
    after = np.zeros_like(now)
    change = np.zeros((classes, height, width), np.float32)
    total = coefficients[0] * now[:, reach : reach + height, reach : reach + width]
    sums = np.empty((classes, width), np.float32)
    # Flat and unsigned: indices that may be negative, and arrays made for every row, would cost a quarter of the time.
    link = links.reshape(-1)
    for order in range(1, len(coefficients)):
        factor = np.float32(1 if order == 1 else 2)
        x = now.reshape(-1)
        for row in range(height):
            r = row + reach
            for k in range(classes):
                out = sums[k]
                out[:] = 0
                own = (k * rows + r) * columns + reach
                for d in range(0, count, 2):  # every direction but its mirror image: always an even number
                    dy, dx = directions[d]
                    o, far, near = uint64(own), uint64(own + dy * columns + dx), uint64(own - dy * columns - dx)
                    ahead = uint64((r * count + d) * columns + reach)
                    behind = uint64(((r - dy) * count + d) * columns + reach - dx)
                    dy, dx = directions[d + 1]
                    far2, near2 = uint64(own + dy * columns + dx), uint64(own - dy * columns - dx)
                    ahead2 = uint64((r * count + d + 1) * columns + reach)
                    behind2 = uint64(((r - dy) * count + d + 1) * columns + reach - dx)
                    for i in range(uint64(width)):
                        out[i] += (
                            link[ahead + i] * (x[far + i] - x[o + i])
                            + link[behind + i] * (x[near + i] - x[o + i])
                            + link[ahead2 + i] * (x[far2 + i] - x[o + i])
                            + link[behind2 + i] * (x[near2 + i] - x[o + i])
                        )
            for k in range(classes):
                for i in range(width):
                    change[k, row, i] += factor * shares[row, i] * sums[k, i]
                    value = now[k, r, reach + i] + change[k, row, i]
                    after[k, r, reach + i] = value
                    total[k, row, i] += coefficients[order] * value
        now, after = after, now
    return total
