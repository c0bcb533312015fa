"""3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3), for CPUs, in float32.

An output tile of 4x4 pixels takes 6x6 inputs. Both are polynomials evaluated at 0, 1, -1, 2, -2 and infinity along each
axis; at each of these 36 points a convolution is one matrix product over channels (Lavin and Gray 2016, section 4).
Agrees with the direct sum to about 1e-5 of the largest output.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

TILE = 4
"""Output pixels of a tile along an axis."""
POINTS = 36
"""Products a tile takes per pair of channels; the direct sum takes 144."""
LANES = 16
"""Channels transformed at once; channel counts must be multiples of it."""
CACHED = 2**21
"""Values of transformed inputs and products held at once: what a core's share of the last cache takes."""
FEWEST_TILES = 160
"""Tiles a band has at least, so that the weights are not reread too often."""

KERNEL_AT_POINTS = np.array([(6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)]) / 24
"""A kernel's three taps at the six points of an axis."""

_LOWEST = np.float32(-np.inf)


def winograd_weights(weight: Tensor) -> Tensor:
    """Transform convolution weights f[O, I, 3, 3] for winograd_conv: f32[36, I, O]."""
    taps = weight.detach().cpu().double().numpy()
    points = np.einsum("yi,xj,ocij->yxco", KERNEL_AT_POINTS, KERNEL_AT_POINTS, taps)
    return torch.from_numpy(points.reshape(POINTS, *points.shape[2:]).astype(np.float32))


def winograd_conv(x: Tensor, weights: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """3x3 convolution of stride 1 with one pixel of zero padding, f32[B, O, H, W] in channels_last.

    x: f32[B, I, H, W]. weights: of winograd_weights; I and O multiples of LANES. bias: f32[O].
    """
    images, _, height, width = x.shape
    channels_in, channels_out = weights.shape[1:]
    out = torch.empty((images, channels_out, height, width), memory_format=torch.channels_last)
    source, target = (map_.permute(0, 2, 3, 1) for map_ in (x.contiguous(memory_format=torch.channels_last), out))
    tiles = images * -(-height // TILE) * -(-width // TILE)
    band = min(max(CACHED // (POINTS * (channels_in + channels_out)), FEWEST_TILES), tiles)
    rows = band | 1  # odd, so that the 36 planes do not fall on the same lines of the cache
    inputs, products = torch.empty(POINTS, rows, channels_in), torch.empty(POINTS, rows, channels_out)
    lowest = np.float32(0) if relu else _LOWEST
    for first in range(0, tiles, band):
        last = min(first + band, tiles)
        _spread(source.numpy(), first, last, inputs.numpy())
        torch.bmm(inputs[:, : last - first], weights, out=products[:, : last - first])
        _gather(products.numpy(), bias.numpy(), lowest, first, last, target.numpy())
    return out


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
def _spread(x, first, last, out):  # type: ignore[no-untyped-def]
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
def _gather(products, bias, lowest, first, last, out):  # type: ignore[no-untyped-def]
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
