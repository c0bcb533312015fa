"""Group norm of float32 maps in channels_last on CPUs, and its gradient, with sums in float64.

Torch's kernel for this layout sums values and squares one after the other in float32: on a map that is mostly padding,
or far from zero, hardly a digit of the variance is right. It is kept for every other layout, type and device, for which
it has other sums. Figures: benchmarks/results/norms.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from amn_dist.ops.threads import in_parts

ROW = 512
"""Values of a row at least: several pixels with all their channels, since loops of a few do not vectorise."""
FEWEST_ROWS = 64
"""Rows that are worth a thread."""


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise maps [B, C, h, w] over groups of channels, then scale and shift by f32[C]; as torch's group_norm."""
    if not _summed_in_float32(x, weight):
        return functional.group_norm(x, groups, weight, bias, eps)
    out: Tensor = _GroupNorm.apply(x, groups, weight, bias, eps)
    return out


def _summed_in_float32(x: Tensor, weight: Tensor) -> bool:
    """Whether torch would take the kernel that loses digits."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    laid = x.dim() == 4 and x.numel() > 0 and x.is_contiguous(memory_format=torch.channels_last)
    return plain and laid and not torch.is_autocast_enabled("cpu")


class _GroupNorm(torch.autograd.Function):
    """Per image and group: y = weight (x - mean) / deviation + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        images, out = _values(x), torch.empty_like(x)
        mean, inverse = _statistics(images, x.shape[1], groups, eps)
        centre, scale = mean.astype(np.float32), inverse * weight.detach().double().numpy()
        # What rounding the mean leaves goes into the shift.
        shift = bias.detach().double().numpy() - (mean - centre) * scale
        _apply(_affine, (images, _values(out)), (centre, scale, shift))
        ctx.save_for_backward(x, weight)
        ctx.groups, ctx.mean, ctx.inverse = groups, mean, inverse
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        above = _values(gradients[0].contiguous(memory_format=torch.channels_last))
        images, out = _values(x), torch.empty_like(x)
        gain, pixels = weight.detach().double().numpy(), x.shape[2] * x.shape[3]
        centre, inverse = ctx.mean.astype(np.float32), ctx.inverse
        rest = ctx.mean - centre
        sums, products = _sums(_add_products, (images, above), (centre,), x.shape[1])
        products = (products - sums * rest) * inverse
        common, along = (_over_group(part * gain, ctx.groups) / pixels for part in (sums, products))
        slope = -along * inverse**2
        tables = (centre, slope, inverse * gain, -common * inverse - slope * rest)
        _apply(_combine, (images, above, _values(out)), tables)
        of_weight, of_bias = (torch.from_numpy(part.sum(0)).float() for part in (products, sums))
        return out, None, of_weight, of_bias, None


def _statistics(images: np.ndarray, channels: int, groups: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse deviation of every channel's group: f64[B, C] each."""
    pixels = images.shape[1] // channels
    total, squares = _sums(_add_squares, (images,), (), channels)
    # Squares of float32 are exact in float64, so that their difference is good for means of a million deviations.
    mean, square = (_over_group(part, groups) / pixels for part in (total, squares))
    return mean, 1 / np.sqrt(np.maximum(square - mean**2, 0) + eps)


def _over_group(values: np.ndarray, groups: int) -> np.ndarray:
    """Mean over the channels of a group, for each of its channels: f64[B, C]."""
    count, channels = values.shape
    return np.repeat(values.reshape(count, groups, -1).mean(2), channels // groups, axis=1)


def _values(x: Tensor) -> np.ndarray:
    """The values f32[B, h * w * C] of maps, not copied."""
    values: np.ndarray = x.detach().permute(0, 2, 3, 1).flatten(1).numpy()
    return values


def _sums(add: Any, arrays: tuple[np.ndarray, ...], tables: tuple[np.ndarray, ...], channels: int) -> np.ndarray:
    """Two sums over the pixels of every image, f64[2, B, C]. tables: f32[B, C] each."""
    images, length = arrays[0].shape
    row, parts = _row(channels), {}
    rows = [np.tile(table, row // channels) for table in tables]

    def work(first: int, last: int) -> None:
        parts[first] = np.zeros((2, images, row))
        add(*arrays, *rows, first * row, min(last * row, length), *parts[first])

    in_parts(-(-length // row), work, fewest=FEWEST_ROWS)
    totals: np.ndarray = np.sum([parts[first] for first in sorted(parts)], 0)
    return totals.reshape(2, images, -1, channels).sum(2)


def _apply(loop: Any, arrays: tuple[np.ndarray, ...], tables: tuple[np.ndarray, ...]) -> None:
    """Run a loop over the values of all images. tables: f[B, C] each."""
    length, channels = arrays[0].shape[1], tables[0].shape[1]
    row = _row(channels)
    rows = [np.tile(table.astype(np.float32), row // channels) for table in tables]

    def work(first: int, last: int) -> None:
        loop(*arrays, *rows, first * row, min(last * row, length))

    in_parts(-(-length // row), work, fewest=FEWEST_ROWS)


def _row(channels: int) -> int:
    """Values of a row: of whole pixels."""
    return -(-ROW // channels) * channels


# Loops run over rows cut out before: an index that is a sum may be negative for all the compiler knows.


@njit(cache=True, nogil=True, error_model="numpy")
def _add_squares(x, first, last, total, squares):  # type: ignore[no-untyped-def]
    """Add values and their squares, a row at a time."""
    for b in range(len(x)):
        sums, squared = total[b], squares[b]
        for at in range(first, last, len(sums)):
            row = x[b, at : min(at + len(sums), last)]
            for i in range(len(row)):
                value = np.float64(row[i])
                sums[i] += value
                squared[i] += value * value


@njit(cache=True, nogil=True, error_model="numpy")
def _add_products(x, gradient, centre, first, last, total, products):  # type: ignore[no-untyped-def]
    """Add gradients, and gradients times centred values."""
    for b in range(len(x)):
        sums, multiplied, middle = total[b], products[b], centre[b]
        for at in range(first, last, len(sums)):
            end = min(at + len(sums), last)
            row, above = x[b, at:end], gradient[b, at:end]
            for i in range(len(row)):
                value = np.float64(above[i])
                sums[i] += value
                multiplied[i] += value * np.float64(row[i] - middle[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _affine(x, out, centre, scale, shift, first, last):  # type: ignore[no-untyped-def]
    """out = (x - centre) scale + shift."""
    for b in range(len(x)):
        middle, factor, added = centre[b], scale[b], shift[b]
        for at in range(first, last, len(middle)):
            end = min(at + len(middle), last)
            row, to = x[b, at:end], out[b, at:end]
            for i in range(len(row)):
                to[i] = (row[i] - middle[i]) * factor[i] + added[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(x, gradient, out, centre, slope, scale, shift, first, last):  # type: ignore[no-untyped-def]
    """out = gradient scale + (x - centre) slope + shift."""
    for b in range(len(x)):
        middle, inclined, factor, added = centre[b], slope[b], scale[b], shift[b]
        for at in range(first, last, len(middle)):
            end = min(at + len(middle), last)
            row, above, to = x[b, at:end], gradient[b, at:end], out[b, at:end]
            for i in range(len(row)):
                to[i] = above[i] * factor[i] + (row[i] - middle[i]) * inclined[i] + added[i]
