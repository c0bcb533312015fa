"""Probabilities of a few classes at any size, from the logits of all classes at several sizes.

C classes, K of them wanted, S scales. The resized logits of all classes, C planes as large as the photo, never exist:
a CPU holds one pixel of them at a time, an accelerator a band of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

from amn_dist.ops.transfer import to_device

BAND_VALUES = 2**26
"""Resized logits an accelerator holds at once."""
LANES = 32
"""Classes computed at once, in vectors of 8."""
ABSENT = np.float32(-1e30)
"""Logit of the classes that fill up the last lanes."""

LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""ln 2 in two parts, of which the first has so few bits that its product with a small integer is exact."""
LOWEST = np.float32(-87.0)
"""Below it lie only exponentials that are nothing beside the largest, which is 1."""


def mean_softmax(logits: Sequence[Tensor], classes: np.ndarray | Tensor, size: tuple[int, int]) -> Tensor:
    """Softmax over all classes of the mean of resized logits, for some classes: f32[K, H, W] where the logits lie.

    logits: f32[C, hs, ws] of each of S scales. classes: [K] their places. Resizing is torch's bilinear interpolation
    with align_corners=False.
    """
    if logits[0].device.type != "cpu":
        return banded_softmax(logits, classes, size)
    out = np.empty((len(classes), *size), np.float32)
    shapes = np.array([maps.shape[-2:] for maps in logits])
    above, below, low_share = _lines(shapes[:, 0], size[0])
    left, right, side_share = _lines(shapes[:, 1], size[1])
    values = np.concatenate([_innermost(maps) for maps in logits])
    wanted = np.asarray(classes, np.intp)
    _softmax(values, shapes, above, below, low_share, left, right, side_share, wanted, out)
    return torch.from_numpy(out)


def banded_softmax(
    logits: Sequence[Tensor], classes: np.ndarray | Tensor, size: tuple[int, int], *, band_values: int = BAND_VALUES
) -> Tensor:
    """The same as mean_softmax in torch, band by band of rows; resizing is two products with thin matrices."""
    device, channels = logits[0].device, len(logits[0])
    wanted = torch.as_tensor(classes, device=device, dtype=torch.long)
    out = torch.empty(len(classes), *size, device=device)
    across = [_line_matrix(maps.shape[-1], size[1], device) for maps in logits]
    down = [_line_matrix(maps.shape[-2], size[0], device) / len(logits) for maps in logits]
    step = max(band_values // (channels * size[1]), 1)
    for first in range(0, size[0], step):
        rows = slice(first, first + step)
        parts = [y[rows] @ maps.float() @ x.T for y, maps, x in zip(down, logits, across, strict=True)]
        mean = sum(parts[1:], parts[0])
        out[:, rows] = torch.exp(mean[wanted] - mean.logsumexp(0))
    return out


def line_weights(length: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear resizing of a line of `length` cells: for each new cell its two neighbours and the second's share.

    Returns intp[cells], intp[cells] and f32[cells], in float32 throughout as torch computes them.
    """
    step = np.float32(length) / np.float32(cells)
    position = np.maximum(
        step * (np.arange(cells, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), np.float32(0)
    )
    lower = np.minimum(position.astype(np.intp), length - 1)
    share = np.clip(position - lower.astype(np.float32), 0, 1)
    return lower, np.minimum(lower + 1, length - 1), share


def _lines(lengths: np.ndarray, cells: int) -> list[np.ndarray]:
    """line_weights of every scale, one below the other."""
    return [np.stack(part) for part in zip(*(line_weights(length, cells) for length in lengths), strict=True)]


@lru_cache(maxsize=512)
def _line_matrix(length: int, cells: int, device: torch.device) -> Tensor:
    lower, upper, share = line_weights(length, cells)
    matrix = np.zeros((cells, length), np.float32)
    matrix[np.arange(cells), lower] += 1 - share
    matrix[np.arange(cells), upper] += share
    return to_device(matrix, device)


def _innermost(maps: Tensor) -> np.ndarray:
    """Logits [C, h, w] as f32[h * w, C], classes filled up to whole lanes."""
    channels = len(maps)
    values = np.full((maps[0].numel(), -(-channels // LANES) * LANES), ABSENT, np.float32)
    values[:, :channels] = maps.reshape(channels, -1).T.numpy()
    return values


# Loops run over all classes at a stretch: the compiler tests once a loop whether arrays overlap, then takes LANES at
# a time.


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def _softmax(values, shapes, above, below, low_share, left, right, side_share, classes, out):  # type: ignore[no-untyped-def]
    """mean_softmax of logits [sum of h * w, C] whose scales lie behind each other."""
    channels, scales = values.shape[1], len(shapes)
    line = np.empty((shapes[:, 1].sum(), channels), np.float32)
    z, e, two_to_n = np.empty(channels, np.float32), np.empty(channels, np.float32), np.empty(channels, np.int32)
    for y in range(out.shape[1]):
        _blend_rows(values, shapes, above[:, y], below[:, y], low_share[:, y], line)
        for x in range(out.shape[2]):
            begin = 0
            for s in range(scales):
                before, after, share = line[begin + left[s, x]], line[begin + right[s, x]], side_share[s, x]
                if s == 0:
                    for c in range(channels):
                        z[c] = before[c] + share * (after[c] - before[c])
                else:
                    for c in range(channels):
                        z[c] += before[c] + share * (after[c] - before[c])
                begin += shapes[s, 1]
            _exponentials(z, _highest(z), e, two_to_n)
            total = _sum(e)
            for k in range(len(classes)):
                out[k, y, x] = e[classes[k]] / total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def _blend_rows(values, shapes, above, below, share, line):  # type: ignore[no-untyped-def]
    """One row of every scale, between two of its own and divided by the number of scales: line[sum of w, C]."""
    first, begin, scales = 0, 0, len(shapes)
    for s in range(scales):
        upper_share = (1 - share[s]) / np.float32(scales)
        lower_share = share[s] / np.float32(scales)
        for x in range(shapes[s, 1]):
            upper = values[first + above[s] * shapes[s, 1] + x]
            lower = values[first + below[s] * shapes[s, 1] + x]
            target = line[begin + x]
            for c in range(len(target)):
                target[c] = upper_share * upper[c] + lower_share * lower[c]
        first += shapes[s, 0] * shapes[s, 1]
        begin += shapes[s, 1]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def _exponentials(z, highest, e, two_to_n):  # type: ignore[no-untyped-def]
    """e = exp(z - highest) to about 1e-7 of each value; two_to_n: scratch i32[C].

    exp t = 2^n exp r with n the nearest integer to t / ln 2 and |r| <= ln 2 / 2: a Taylor series of degree 6.
    """
    for c in range(len(z)):
        t = max(z[c] - highest, LOWEST)
        n = np.floor(t * LOG2_E + np.float32(0.5))
        r = t - n * LN2_HIGH - n * LN2_LOW
        p = np.float32(1 / 720) * r + np.float32(1 / 120)
        p = (((p * r + np.float32(1 / 24)) * r + np.float32(1 / 6)) * r + np.float32(0.5)) * r + np.float32(1)
        e[c] = p * r + np.float32(1)
        two_to_n[c] = (np.int32(n) + np.int32(127)) << np.int32(23)
    power = two_to_n.view(np.float32)
    for c in range(len(z)):
        e[c] *= power[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _highest(z):  # type: ignore[no-untyped-def]
    highest = z[0]
    for c in range(len(z)):
        highest = max(highest, z[c])
    return highest


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _sum(e):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for c in range(len(e)):
        total += e[c]
    return total
