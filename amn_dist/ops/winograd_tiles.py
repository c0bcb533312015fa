"""Winograd's transforms between pixels and points, tile by tile, compiled for CPUs. See winograd.py."""

from __future__ import annotations

import numpy as np
from numba import njit

LANES = 16
"""Channels transformed at once; channel counts must be multiples of it."""

# The innermost loops run over LANES consecutive values of one scratch array at constant distances: only then does the
# compiler know that loads and stores do not overlap, and vectorises.


@njit(inline="always")
def _to_points(s, at, step):  # type: ignore[no-untyped-def]
    """Six inputs of a line, in place, at the six points."""
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    for c in range(at, at + LANES):
        d0, d1, d2 = s[c], s[c + step], s[c + 2 * step]
        d3, d4, d5 = s[c + 3 * step], s[c + 4 * step], s[c + 5 * step]
        even, odd = d4 - four * d2, d3 - four * d1
        even_by_two, odd_by_two = d4 - d2, two * (d3 - d1)
        s[c] = four * d0 - five * d2 + d4
        s[c + step] = even + odd
        s[c + 2 * step] = even - odd
        s[c + 3 * step] = even_by_two + odd_by_two
        s[c + 4 * step] = even_by_two - odd_by_two
        s[c + 5 * step] = four * d1 - five * d3 + d5


@njit(inline="always")
def _from_points(s, at, step):  # type: ignore[no-untyped-def]
    """Six products of a line, in place, to its four outputs."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for c in range(at, at + LANES):
        m0, m1, m2 = s[c], s[c + step], s[c + 2 * step]
        m3, m4, m5 = s[c + 3 * step], s[c + 4 * step], s[c + 5 * step]
        sum_one, difference_one = m1 + m2, m1 - m2
        sum_two, difference_two = m3 + m4, m3 - m4
        s[c] = m0 + sum_one + sum_two
        s[c + step] = difference_one + two * difference_two
        s[c + 2 * step] = sum_one + four * sum_two
        s[c + 3 * step] = difference_one + eight * difference_two + m5


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def spread(x, first, last, out):  # type: ignore[no-untyped-def]
    """Inputs [B, H, W, I] of tiles first..last at the 36 points: out[36, :, I]."""
    _, height, width, channels = x.shape
    down, across = (height + 3) // 4, (width + 3) // 4
    s = np.empty(36 * LANES, np.float32)
    for tile in range(first, last):
        image = tile // (down * across)
        top, left = tile // across % down * 4 - 1, tile % across * 4 - 1
        for begin in range(0, channels, LANES):
            for i in range(6):
                for j in range(6):
                    at = (6 * i + j) * LANES
                    if 0 <= top + i < height and 0 <= left + j < width:
                        pixel = x[image, top + i, left + j]
                        for c in range(LANES):
                            s[at + c] = pixel[begin + c]
                    else:
                        for c in range(LANES):
                            s[at + c] = 0
            for column in range(6):
                _to_points(s, column * LANES, 6 * LANES)
            for row in range(6):
                _to_points(s, row * 6 * LANES, LANES)
            for point in range(36):
                values = out[point, tile - first]
                for c in range(LANES):
                    values[begin + c] = s[point * LANES + c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def gather(products, bias, lowest, first, last, out):  # type: ignore[no-untyped-def]
    """Products [36, :, O] of tiles first..last to outputs [B, H, W, O]: plus bias, at least `lowest`."""
    _, height, width, channels = out.shape
    down, across = (height + 3) // 4, (width + 3) // 4
    s = np.empty(36 * LANES, np.float32)
    for tile in range(first, last):
        image = tile // (down * across)
        top, left = tile // across % down * 4, tile % across * 4
        for begin in range(0, channels, LANES):
            for point in range(36):
                values = products[point, tile - first]
                for c in range(LANES):
                    s[point * LANES + c] = values[begin + c]
            for column in range(6):
                _from_points(s, column * LANES, 6 * LANES)
            for row in range(4):
                _from_points(s, row * 6 * LANES, LANES)
            for i in range(min(4, height - top)):
                for j in range(min(4, width - left)):
                    pixel, at = out[image, top + i, left + j], (6 * i + j) * LANES
                    for c in range(LANES):
                        pixel[begin + c] = max(s[at + c] + bias[begin + c], lowest)
