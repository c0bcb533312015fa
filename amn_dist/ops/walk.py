"""Random walk inside edges, as a stencil (amn 1.5, 3.4).

T is the symmetric affinity A with columns divided by their sums d. With S = d^-1/2 A d^-1/2, whose spectrum lies in
[-1, 1], x T^n = (x d^1/2) S^n d^-1/2, and t^n = sum_k c_k T_k(t) with binomial c_k: the probabilities of a fair walk of
n steps to end at distance k. Leaving out those that add up to TAIL, 256 steps cost 90 products; the error stays below
TAIL |x d^1/2|, which is 1e-5 of the largest x on 10^4 cells at the very worst (d <= 69, norms instead of maxima). Few
steps keep the whole sum, which is exact and no dearer than stepping.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from amn_dist.errors import ConfigError
from amn_dist.ops.affinity import path_cells, path_directions
from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.records import grid_size

TAIL = 1e-8
"""Binomial probability that the Chebyshev sum may leave out."""


def random_walk(activation: Array, edge: Array, *, radius: int = 5, beta: float = 10.0, steps: int = 256) -> Array:
    """Activation spread by a random walk that edges stop: x (1 - E) T^steps, f32[K, h, w].

    activation: f32[K, h, w]. edge: f32[h, w] in [0, 1]. radius: cells; pairs nearer than that are linked. beta: power
    of the affinity before columns are normalised. Agrees with the dense float64 product to 1e-5 of the maximum.
    """
    x, barrier = as_floats(activation), as_floats(edge)
    if barrier.shape != x.shape[-2:]:
        raise ConfigError(
            f"random_walk: found edge {barrier.shape}, expected {x.shape[-2:]}, the grid of the activation"
        )
    return same_kind(_walk(x * (1 - barrier), barrier, radius, float(beta), steps), activation)


def pseudo_mask(
    activation: Array,
    edge: np.ndarray | Tensor,
    classes: np.ndarray | Tensor,
    size: tuple[int, int],
    *,
    background: float = 0.25,
    power: float = 1.3,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
) -> Array:
    """Pseudo-mask uint8[H, W] of an image (amn 1.5).

    activation: [K, h, w] in [0, 1]. edge: [h, w]. classes: [K] 1-based. size: (H, W). background: threshold on the
    walked map over its maximum of all classes. power: the activation is raised to it first. An image without classes,
    or whose walk is zero everywhere, is background.
    """
    maps, present = as_floats(activation), as_array(classes).astype(np.uint8)
    if not len(present):
        return same_kind(np.zeros(size, np.uint8), activation)
    expected = (len(present), *grid_size(*size))
    if maps.shape != expected:
        raise ConfigError(f"pseudo_mask: found activation {maps.shape}, expected {expected} for {size} pixels")
    walked = random_walk(maps**power, as_floats(edge), radius=radius, beta=beta, steps=steps)
    strongest = walk_scores(walked, size, background=background).argmax(0)
    return same_kind(np.concatenate([[0], present]).astype(np.uint8)[strongest], activation)


def walk_scores(walked: np.ndarray, size: tuple[int, int], *, background: float) -> np.ndarray:
    """The planes whose argmax is the pseudo-mask: background threshold and walked maps, f32[K + 1, H, W]."""
    height, width = size
    maps = torch.from_numpy(walked)[None]
    fine = functional.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)[0, :, :height, :width]
    highest = fine.max()
    scores = fine / highest if highest > 0 else torch.zeros_like(fine)
    return np.concatenate([np.full((1, height, width), background, np.float32), scores.numpy()])


@cache
def chebyshev_coefficients(steps: int, tail: float = TAIL) -> np.ndarray:
    """Coefficients f64[degree + 1] of t^steps in Chebyshev polynomials, cut where at most `tail` is left out."""
    chance = [_binomial(steps, k) for k in range(steps + 1)]
    left, degree = 0.0, steps
    while degree > 0 and left + chance[degree] <= tail:
        left += chance[degree]
        degree -= 1
    return np.array(chance[: degree + 1])


def _binomial(steps: int, k: int) -> float:
    """Probability that a fair walk of `steps` steps ends at distance k from its start."""
    return 0.0 if (steps - k) % 2 else math.comb(steps, (steps - k) // 2) * (2 if k else 1) / 2**steps


@cache
def _geometry(radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions int64[D, 2], path cells of all directions int64[cells, 2], and where each direction's begin."""
    directions = path_directions(radius)
    paths = [path_cells(direction) for direction in directions]
    begins = np.cumsum([0, *(len(path) for path in paths)])
    return np.array(directions), np.array([cell for path in paths for cell in path]), begins


def _walk(x: np.ndarray, edge: np.ndarray, radius: int, beta: float, steps: int) -> np.ndarray:
    directions, cells, begins = _geometry(radius)
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
