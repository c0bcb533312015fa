"""Gaussian kernels over positions and colours as normalised filters on a permutohedral lattice (amn 6).

K = B^T G B: weights B spread pixels to points, G blurs with (1/2, 1, 1/2) along every axis, B^T gathers. With D = K 1,
the filter is D^-1/2 K D^-1/2; the roots are part of the weights. Pixels stand in tiles, in `tile_order`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

from amn_dist.ops.crf.permutohedral import (
    PREFETCH_AHEAD,
    STRIP,
    embed,
    feature_scales,
    insert_keys,
    key_strides,
    link_chains,
)
from amn_dist.ops.crf.simd import LANES_8

TILE = 32
"""Pixels on a side: what a tile touches stays in the second-level cache."""
OFFSET = np.float32(1e-20)
"""Added to D, as in the reference implementation."""


class Lattice(NamedTuple):
    """A kernel's filter for N pixels in tile order, padded to P; a tuple because compiled code reads it."""

    offsets: np.ndarray
    """Points around every pixel, i32[P (d + 1)]."""
    weights: np.ndarray
    """Their normalised weights, f32[P (d + 1)]; 0 for padding."""
    frontier: np.ndarray
    """Points that the pixels up to every strip's end have touched, i32[P / STRIP]."""
    chains: np.ndarray
    """Points linked along every axis, i32; see permutohedral.link_chains; PREFETCH_AHEAD zeros at the end."""
    begins: np.ndarray
    """Where the axes begin in the chains, i64[d + 2]."""
    points: int
    gain: np.float32
    """Constant of the blur, 1 / (1 + 2^-d)."""
    row_sums: np.ndarray
    """What the filter makes of ones, f32[P]."""


@lru_cache(maxsize=16)
def tile_order(height: int, width: int) -> np.ndarray:
    """Pixels of an image tile by tile, i32[P]; padded with pixel 0 to a multiple of STRIP."""
    y, x = np.divmod(np.arange(height * width, dtype=np.int64), width)
    tile = (y // TILE) * (width // TILE + 1) + x // TILE
    order = np.argsort((tile * TILE + y % TILE) * TILE + x % TILE).astype(np.int32)
    return np.concatenate([order, np.zeros(-len(order) % STRIP, np.int32)])


@lru_cache(maxsize=8)
def gaussian_lattice(height: int, width: int, deviation: float) -> Lattice:
    """The kernel over positions; deviation in pixels. It depends on the size alone and is kept."""
    order = tile_order(height, width)
    features = np.empty((2, len(order)), np.float32)
    _positions(order, width, np.float32(deviation), features)
    return _lattice(features, np.array([width, height]) / deviation, height * width)


def bilateral_lattice(image: np.ndarray, position: float, colour: float) -> Lattice:
    """The kernel over positions and colours of uint8[H, W, 3]; deviations in pixels and in 0..255."""
    height, width = image.shape[:2]
    order = tile_order(height, width)
    features = np.empty((5, len(order)), np.float32)
    _positions(order, width, np.float32(position), features)
    _colours(order, np.ascontiguousarray(image).reshape(-1, 3), np.float32(colour), features)
    highest = np.array([width / position, height / position, *[255 / colour] * 3])
    return _lattice(features, highest, height * width)


def _lattice(features: np.ndarray, highest: np.ndarray, pixels: int) -> Lattice:
    dimensions, count = features.shape
    # The reference works in fours and fills the last four with zero features: their points take part in the blur.
    if pixels % 4:
        features[:, pixels:] = 0
    (strides, _), scales = key_strides(highest), feature_scales(dimensions)
    # Large arrays come from NumPy, which asks for huge pages: random access to them is twice as fast.
    offsets, weights = np.empty(count * len(strides), np.int32), np.empty(count * len(strides), np.float32)
    frontier = np.empty(count // STRIP, np.int32)
    bits = max(10, (4 * count).bit_length() - 1)
    table, keys = np.zeros(1 << bits, np.uint32), np.empty(1 << (bits - 1), np.int64)
    start = points = 0
    while True:
        arrays = offsets, weights, frontier, table, keys
        start, points = embed(features, scales, strides, *arrays, start, points, LANES_8)
        if start == count:
            break
        keys = np.concatenate([keys, np.empty_like(keys)])
        table = np.zeros(2 * len(table), np.uint32)
        insert_keys(keys, points, table)
    weights[pixels * len(strides) :] = 0
    chains = np.empty(len(strides) * (points + 1) + PREFETCH_AHEAD, np.int32)
    scratch = np.empty(points, np.int32), np.empty(points, np.bool_)
    begins = link_chains(keys[:points], table, np.array(strides), *scratch, chains)
    gain = np.float32(1 / (1 + 2.0**-dimensions))
    row_sums = np.empty(count, np.float32)
    _normalise(offsets, weights, chains, begins, gain, np.zeros((2, points), np.float32), row_sums)
    return Lattice(offsets, weights, frontier, _padded_end(chains, begins[-1]), begins, points, gain, row_sums)


def _padded_end(chains: np.ndarray, end: int) -> np.ndarray:
    """The entries in use and PREFETCH_AHEAD zeros, which blurring looks ahead to."""
    chains[end : end + PREFETCH_AHEAD] = 0
    return chains[: end + PREFETCH_AHEAD].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def _positions(order, width, deviation, features):  # type: ignore[no-untyped-def]
    for p in range(len(order)):
        features[0, p] = np.float32(order[p] % width) / deviation
        features[1, p] = np.float32(order[p] // width) / deviation


@njit(cache=True, nogil=True, error_model="numpy")
def _colours(order, image, deviation, features):  # type: ignore[no-untyped-def]
    for p in range(len(order)):
        for channel in range(3):
            features[2 + channel, p] = np.float32(image[order[p], channel]) / deviation


@njit(cache=True, nogil=True, error_model="numpy")
def _normalise(offsets, weights, chains, begins, gain, values, row_sums):  # type: ignore[no-untyped-def]
    """Multiply weights by D^-1/2, and filter ones with them. values: zeros f32[2, points]."""
    vertices, count = len(begins) - 1, len(row_sums)
    for k in range(len(offsets)):
        values[0, offsets[k]] += weights[k]
    _blur(values[0], chains, begins)
    for p in range(count):
        total = np.float32(0)
        for k in range(p * vertices, (p + 1) * vertices):
            total += weights[k] * values[0, offsets[k]]
        root = np.float32(1) / np.sqrt(gain * total + OFFSET)
        for k in range(p * vertices, (p + 1) * vertices):
            weights[k] *= root
            values[1, offsets[k]] += weights[k]
    _blur(values[1], chains, begins)
    for p in range(count):
        total = np.float32(0)
        for k in range(p * vertices, (p + 1) * vertices):
            total += weights[k] * values[1, offsets[k]]
        row_sums[p] = gain * total


@njit(nogil=True, error_model="numpy")
def _blur(values, chains, begins):  # type: ignore[no-untyped-def]
    """Blur one number a point in place; where a chain ends, so does its coupling."""
    for axis in range(len(begins) - 1):
        before, coupling, entry = np.float32(0), np.float32(0), chains[begins[axis]]
        here = values[entry >> 1]
        for k in range(begins[axis] + 1, begins[axis + 1]):
            after, link = values[chains[k] >> 1], np.float32(0.5) * np.float32(entry & 1)
            values[entry >> 1] = here + (coupling * before + link * after)
            before, here, coupling, entry = here, after, link, chains[k]
