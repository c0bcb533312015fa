"""Where features lie on the permutohedral lattice A*_d (Adams et al. 2010).

A feature is lifted to the plane of d + 1 coordinates whose sum is zero; the simplex around it has one vertex of each
remainder 0..d modulo d + 1, and barycentric coordinates weigh them. Arithmetic is float32 in the order of the
reference implementation, so that a feature on a border falls to the same side.

A vertex is one number, its key: the inner product of its first d coordinates with strides wide enough that no two
vertices, nor their neighbours, share one. Going to a neighbour, or from a vertex of the simplex to the next, is adding
a constant. Points are numbered in the order in which features touch them: near in the image, near in memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from amn_dist.errors import ConfigError
from amn_dist.ops.crf.simd import LANES_8, add, at, fill, less, load, multiply, nearest, prefetch, store, subtract

STRIP = len(LANES_8)
"""Features that are lifted together; their count is a multiple of it."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
PREFETCH_AHEAD = 32
"""Steps ahead of the one being done that memory is asked for."""


def feature_scales(dimensions: int) -> np.ndarray:
    """Factors f32[d] that make the lattice's blur a Gaussian of deviation one in every feature."""
    axis = np.arange(1, dimensions + 1)
    deviation = np.float64(np.float32(math.sqrt(2 / 3) * (dimensions + 1)))
    return (deviation / np.sqrt(axis * (axis + 1))).astype(np.float32)


def key_strides(highest: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Strides of the first d coordinates, then 0, for features f64[d] between 0 and `highest`; span of the keys."""
    dimensions = len(highest)
    reach = highest * feature_scales(dimensions)
    # A vertex is less than d + 1 off the lifted feature; so is its neighbour off it; the rest covers rounding.
    margin = 3 * (dimensions + 1)
    strides, stride = [], 1
    for axis in range(dimensions):
        strides.append(stride)
        below = axis * reach[axis - 1] if axis else 0
        stride *= int(reach[axis:].sum() + below) + 2 * margin
    if stride >= 2**62:
        raise ConfigError(
            f"dense CRF: found features up to {highest.max():.0f} deviations, expected ranges whose lattice points "
            "can be numbered in 62 bits; widen the deviations or take backend pydensecrf"
        )
    return (*strides, 0), stride


def check_span(span: int, images: int) -> None:
    """Refuse more images than keys of one number can tell apart.

    Raises:
        ConfigError: the keys would not fit 63 bits.
    """
    if span * (images + 1) >= 2**63:
        raise ConfigError(f"dense CRF: found {images} images, expected fewer at a time for these deviations")


@njit(inline="always")
def _slot(key, bits):  # type: ignore[no-untyped-def]
    return np.int64((np.uint64(key) * MIXER) >> np.uint64(64 - bits))


@njit(inline="always")
def _entry(key, point, bits):  # type: ignore[no-untyped-def]
    """Table entry: the point's number plus one in the low bits, some of the key's hash above."""
    mark = np.uint32((np.uint64(key) * MIXER) >> np.uint64(8)) & ~np.uint32((1 << bits) - 1)
    return mark | np.uint32(point + 1)


@njit(inline="always")
def _table_bits(table):  # type: ignore[no-untyped-def]
    bits = 0
    while (1 << bits) < len(table):
        bits += 1
    return bits


@njit(inline="always")
def _find(table, keys, key, bits):  # type: ignore[no-untyped-def]
    """Number of the point with that key, or -1 minus the slot that would hold it."""
    slot, low = _slot(key, bits), np.uint32((1 << bits) - 1)
    mark = _entry(key, -1, bits)
    while True:
        entry = at(table, slot)
        if entry == np.uint32(0):
            return -1 - slot
        if (entry & ~low) == mark:
            point = np.int64(entry & low) - 1
            if at(keys, point) == key:
                return point
        slot = (slot + 1) & np.int64(low)


@njit(cache=True, nogil=True, error_model="numpy")
def insert_keys(keys, points, table):  # type: ignore[no-untyped-def]
    """Enter the first `points` keys i64 into an empty table u32[2^bits]."""
    bits = _table_bits(table)
    for point in range(points):
        table[-1 - _find(table, keys, keys[point], bits)] = _entry(keys[point], point, bits)


@njit(cache=True, nogil=True, error_model="numpy")
def embed(features, scales, strides, offsets, weights, frontier, table, keys, start, points, lanes):  # type: ignore[no-untyped-def]
    """Number the vertices around features f32[d, count] from `start` on and weigh them; how far it came, points known.

    strides: int64 tuple [d + 1]. Fills offsets i32 and weights f32 [count (d + 1)], vertices of a feature side by
    side, frontier i32[count / STRIP], the points known after each strip, and the table and keys. Stops early when the
    keys might not suffice for the next strip.
    """
    vertices, width, count = len(strides), len(lanes), features.shape[1]
    bits = _table_bits(table)
    up, down = fill(np.float32(vertices), lanes), fill(np.float32(1) / np.float32(vertices), lanes)
    zero, one = fill(np.float32(0), lanes), fill(np.float32(1), lanes)
    elevated, remainder = np.empty(vertices * width, np.float32), np.empty(vertices * width, np.float32)
    offset, rank = np.empty(vertices * width, np.float32), np.empty(vertices * width, np.float32)
    ordered, owner = np.empty(vertices, np.float32), np.empty(vertices, np.int64)
    vertex_keys = np.empty(vertices * width, np.int64)
    last_key, last_point = np.full(vertices, -1, np.int64), np.zeros(vertices, np.int32)
    step = np.int64(0)
    for axis in range(vertices):
        step += strides[axis]
    for p in range(start, count, width):
        if points + vertices * width > len(keys):
            return p, points
        above = zero
        for axis in range(vertices - 1, 0, -1):
            scaled = multiply(load(features, (axis - 1) * count + p, lanes), fill(scales[axis - 1], lanes))
            store(elevated, axis * width, subtract(above, multiply(fill(np.float32(axis), lanes), scaled)))
            above = add(above, scaled)
        store(elevated, 0, above)
        # The nearest vertex of remainder zero, up to a shift.
        total = zero
        for axis in range(vertices):
            lifted = load(elevated, axis * width, lanes)
            rounded = nearest(multiply(down, lifted))
            total = add(total, rounded)
            rounded = multiply(rounded, up)
            store(remainder, axis * width, rounded)
            store(offset, axis * width, subtract(lifted, rounded))
        # Ranks of the offsets, the largest first; they tell the simplex, and too large or small ones the shift.
        for axis in range(vertices):
            store(rank, axis * width, total)
        for axis in range(vertices - 1):
            own, ahead = load(offset, axis * width, lanes), load(rank, axis * width, lanes)
            for other in range(axis + 1, vertices):
                smaller = less(own, load(offset, other * width, lanes))
                ahead = add(ahead, smaller)
                behind = add(load(rank, other * width, lanes), subtract(one, smaller))
                store(rank, other * width, behind)
            store(rank, axis * width, ahead)
        for axis in range(vertices):
            own = load(rank, axis * width, lanes)
            shift = multiply(up, subtract(less(own, zero), subtract(one, less(own, up))))
            store(rank, axis * width, add(own, shift))
            vertex = add(load(remainder, axis * width, lanes), shift)
            store(remainder, axis * width, vertex)
            store(offset, axis * width, multiply(subtract(load(elevated, axis * width, lanes), vertex), down))
        # Scalar from here: barycentric weights are differences of ranked offsets, keys go from vertex to vertex.
        for lane in range(width):
            key, q = np.int64(0), (p + lane) * vertices
            for axis in range(vertices):
                own_rank = np.int64(rank[axis * width + lane])
                ordered[own_rank] = offset[axis * width + lane]
                owner[own_rank] = vertices * strides[axis]
                key += np.int64(remainder[axis * width + lane]) * strides[axis]
            weights[q] = ordered[vertices - 1] + (np.float32(1) - ordered[0])
            vertex_keys[lane * vertices] = key
            prefetch(table, _slot(key, bits))
            for vertex in range(1, vertices):
                weights[q + vertex] = ordered[vertices - 1 - vertex] - ordered[vertices - vertex]
                key += step - owner[vertices - vertex]
                vertex_keys[lane * vertices + vertex] = key
                prefetch(table, _slot(key, bits))
        for lane in range(width):
            for vertex in range(vertices):
                key = vertex_keys[lane * vertices + vertex]
                if key != last_key[vertex]:
                    point = _find(table, keys, key, bits)
                    if point < 0:
                        keys[points] = key
                        table[-1 - point] = _entry(key, points, bits)
                        point = points
                        points += 1
                    last_key[vertex], last_point[vertex] = key, point
                offsets[(p + lane) * vertices + vertex] = last_point[vertex]
        frontier[p // width] = points
    return count, points


@njit(cache=True, nogil=True, error_model="numpy")
def link_chains(keys, table, strides, ahead, behind, chains):  # type: ignore[no-untyped-def]
    """Link points with a neighbour to chains, axis by axis; where each axis begins, i64[d + 2].

    keys: i64[points]. strides: i64[d + 1]. ahead, behind: scratch i32 and bool [points]. Fills chains i32[at least
    (d + 1) (points + 1)]: twice the point's number, plus one if its neighbour follows; every axis ends with one zero.
    """
    points, bits, count = len(keys), _table_bits(table), 0
    begins = np.zeros(len(strides) + 1, np.int64)
    for axis in range(len(strides)):
        jump = strides.sum() - len(strides) * strides[axis]
        behind[:] = False
        for point in range(points):
            prefetch(table, _slot(keys[min(point + PREFETCH_AHEAD, points - 1)] + jump, bits))
            neighbour = _find(table, keys, keys[point] + jump, bits)
            ahead[point] = max(neighbour, -1)
            if neighbour >= 0:
                behind[neighbour] = True
        for first in range(points):
            if behind[first] or ahead[first] < 0:
                continue
            here = np.int64(first)
            while here >= 0:
                chains[count] = 2 * here + (ahead[here] >= 0)
                here = np.int64(ahead[here])
                count += 1
        chains[count] = 0
        count += 1
        begins[axis + 1] = count
    return begins
