"""Affinity and labels of all pairs on a CUDA device: one launch forward, one backward, one for the labels.

The twins are in ops/affinity.py; results are theirs to the last bit. B images, D directions, N = rows * columns
sources, which begin in column `reach`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from amn_dist.errors import ConfigError
from amn_dist.ops.kernels.launching import blocks, launch
from amn_dist.ops.paths import path_table, path_tensors

BLOCK = 128
"""Sources, or cells, of a program."""
LONGEST = 255
"""Cells on a path at most: which of them is the strongest is kept in 8 bits."""


class PairAffinity(torch.autograd.Function):
    """Keeps which cell of every path is the strongest, uint8[B, D, N]; the gradient is gathered, so that it repeats."""

    @staticmethod
    def forward(ctx: Any, edge: Tensor, radius: int) -> Tensor:
        _check(radius)
        edge = edge.contiguous()
        number, height, width = edge.shape
        rows, columns = sources(height, width, radius)
        _, cells, begins = path_tensors(radius, edge.device)
        count = len(begins) - 1
        affinity = edge.new_empty(number, count, rows * columns)
        strongest = torch.empty_like(affinity, dtype=torch.uint8)
        grid = blocks(rows * columns, BLOCK), count, number
        launch(
            _affinity_kernel, grid, edge, cells, begins, affinity, strongest,
            height, width, rows, columns, radius - 1, count, BLOCK=BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(strongest)
        ctx.radius, ctx.size = radius, (height, width)
        return affinity

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (strongest,) = ctx.saved_tensors
        gradient, (height, width) = gradients[0].contiguous(), ctx.size
        rows, columns = sources(height, width, ctx.radius)
        _, cells, begins = path_tensors(ctx.radius, gradient.device)
        number, count = strongest.shape[:2]
        total = gradient.new_empty(number, height, width)
        launch(
            _gradient_kernel, (blocks(height * width, BLOCK), number), gradient, strongest, cells, begins, total,
            height, width, rows, columns, ctx.radius - 1, count, BLOCK=BLOCK,
        )  # fmt: skip
        return total, None


def pair_kinds(labels: Tensor, radius: int, valid: int) -> tuple[Tensor, Tensor, Tensor]:
    """pair_labels of labels uint8[B, h, w]; a pair with a label of `valid` or more is in none."""
    labels = labels.contiguous()
    number, height, width = labels.shape
    rows, columns = sources(height, width, radius)
    table, _, begins = path_tensors(radius, labels.device)
    count = len(begins) - 1
    kinds = labels.new_empty(3, number, count, rows * columns)
    grid = blocks(rows * columns, BLOCK), count, number
    launch(
        _kinds_kernel, grid, labels, table, kinds, number,
        height, width, rows, columns, radius - 1, count, valid, BLOCK=BLOCK,
    )  # fmt: skip
    background, foreground, different = kinds.view(torch.bool)
    return background, foreground, different


def sources(height: int, width: int, radius: int) -> tuple[int, int]:
    """Rows and columns of cells that have all their neighbours."""
    return max(height - radius + 1, 0), max(width - 2 * (radius - 1), 0)


def _check(radius: int) -> None:
    longest = int(np.diff(path_table(radius)[2]).max(initial=0))
    if longest > LONGEST:
        expected = f"at most {LONGEST} on a CUDA device; take a smaller radius"
        raise ConfigError(f"pair_affinity: found paths of {longest} cells for radius {radius}, expected {expected}")


@triton.jit
def _affinity_kernel(  # type: ignore[no-untyped-def]
    edge, cells, begins, affinity, strongest, height, width, rows, columns, reach, count, BLOCK: tl.constexpr
):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d, b = tl.program_id(1), tl.program_id(2)
    inside = n < rows * columns
    source = edge + (b * height + n // columns) * width + n % columns + reach
    begin = tl.load(begins + d)
    highest = tl.full((BLOCK,), -1.0, edge.dtype.element_ty)
    which = tl.zeros((BLOCK,), tl.int32)
    for c in range(begin, tl.load(begins + d + 1)):
        away = tl.load(cells + 2 * c) * width + tl.load(cells + 2 * c + 1)
        value = tl.load(source + away, mask=inside, other=-1.0)
        which = tl.where(value > highest, c - begin, which)
        highest = tl.maximum(highest, value, propagate_nan=tl.PropagateNan.ALL)
    at = (b * count + d).to(tl.int64) * rows * columns + n
    tl.store(affinity + at, 1 - highest, mask=inside)
    tl.store(strongest + at, which.to(tl.uint8), mask=inside)


@triton.jit
def _gradient_kernel(  # type: ignore[no-untyped-def]
    gradient, strongest, cells, begins, total, height, width, rows, columns, reach, count, BLOCK: tl.constexpr
):
    """Less the gradients of all pairs whose strongest cell this is, in the order of directions, then of cells."""
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b = tl.program_id(1)
    y, x = p // width, p % width - reach
    inside = p < height * width
    less = tl.zeros((BLOCK,), total.dtype.element_ty)
    for d in range(count):
        begin = tl.load(begins + d)
        first = (b * count + d).to(tl.int64) * rows * columns
        for c in range(begin, tl.load(begins + d + 1)):
            row, column = y - tl.load(cells + 2 * c), x - tl.load(cells + 2 * c + 1)
            paired = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            at = first + row * columns + column
            which = tl.load(strongest + at, mask=paired, other=0).to(tl.int32)
            less -= tl.load(gradient + at, mask=paired & (which == c - begin), other=0.0)
    tl.store(total + b.to(tl.int64) * height * width + p, less, mask=inside)


@triton.jit
def _kinds_kernel(  # type: ignore[no-untyped-def]
    labels, directions, kinds, number, height, width, rows, columns, reach, count, valid, BLOCK: tl.constexpr
):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d, b = tl.program_id(1), tl.program_id(2)
    inside = n < rows * columns
    here = labels + (b * height + n // columns) * width + n % columns + reach
    away = tl.load(directions + 2 * d) * width + tl.load(directions + 2 * d + 1)
    source = tl.load(here, mask=inside, other=0).to(tl.int32)
    target = tl.load(here + away, mask=inside, other=0).to(tl.int32)
    both, equal = (source < valid) & (target < valid), source == target
    _store_kind(kinds, both & equal & (source == 0), b, d, count, rows * columns, n, inside)
    _store_kind(kinds, both & equal & (source > 0), number + b, d, count, rows * columns, n, inside)
    _store_kind(kinds, both & (source != target), 2 * number + b, d, count, rows * columns, n, inside)


@triton.jit
def _store_kind(kinds, value, image, d, count, pairs, n, inside):  # type: ignore[no-untyped-def]
    tl.store(kinds + (image * count + d).to(tl.int64) * pairs + n, value.to(tl.uint8), mask=inside)
