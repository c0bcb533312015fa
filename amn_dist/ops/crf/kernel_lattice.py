"""The permutohedral lattice of many images on a CUDA device, built without asking the device anything (amn 6).

Pixels of all images stand in one row, each image filled up to a multiple of four with pixels of zero features that
weigh nothing (the reference's last strip has them, too). An entry is a vertex of a pixel's simplex. Entries sorted by
key give the points, numbered by key, and every point's entries in the order of pixels; a point's entries are summed in
chunks, then its chunks, so that one that covers a whole sky keeps no program waiting. How many points and chunks there
are only the device knows: arrays are as long as there are entries, and nothing waits for an answer. Results repeat, and
those of an image do not depend on the others. The kernels are in
ops/kernels/lattice.py and lattice_filter.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.crf.permutohedral import check_span, feature_scales, key_strides
from amn_dist.ops.kernels.lattice import chunk_kernel, cut_kernel, embed_kernel, neighbour_kernel, number_kernel
from amn_dist.ops.kernels.lattice_filter import blur_kernel, gather_kernel, slice_kernel, splat_kernel
from amn_dist.ops.kernels.launching import blocks, launch

CHUNK = 64
"""Entries that one lane adds up."""
MOST_CHANNELS = 16
"""Channels that are filtered together."""
TILE = 512
"""Values of a program that works on points or pixels: rows times channels."""
BLOCK = 128
"""Entries, pixels or points of a program that looks at keys."""
PROGRAMS = 2048
"""Programs of a launch that reads from the device how much there is to do."""
OFFSET = 1e-20
"""Added to the sums of kernel rows, as in the reference implementation."""

Size = tuple[int, int]


@dataclass(frozen=True)
class KernelLattice:
    """Gaussian filter of all images' pixels; E entries, as many points at most."""

    offsets: Tensor
    """Points around every pixel, i32[pixels, vertices]."""
    weights: Tensor
    """Their weights, f32[pixels, vertices]; the roots of the kernel's row sums are part of them."""
    pixels: Tensor
    """Pixel of every entry, point by point, i32[E]."""
    spread: Tensor
    """Weight of every entry, f32[E]."""
    chunk_begins: Tensor
    """First entry of every chunk, and the end, i32[E + 1]."""
    firsts: Tensor
    """First chunk of every point, and the end, i32[E + 1]."""
    counts: Tensor
    """How many points and chunks there are, i32[2]."""
    neighbours: Tensor
    """Follower and predecessor along every axis, i32[vertices, 2, E]; -1 where there is none."""

    @property
    def gain(self) -> float:
        return 1 / (1 + 2.0 ** (1 - self.offsets.shape[1]))

    def filter(self, q: Tensor, message: Tensor, *, weight: float, add: bool) -> None:
        """Filtered channels of q f32[pixels, C], times the weight, to message f32[pixels, C] or added to it."""
        for first in range(0, q.shape[1], MOST_CHANNELS):
            channels = min(q.shape[1] - first, MOST_CHANNELS)
            self._filter(q[:, first:], message[:, first:], channels, weight * self.gain, add)

    def _filter(self, q: Tensor, message: Tensor, channels: int, factor: float, add: bool) -> None:
        wide = row_width(channels)
        tile: dict[str, Any] = {"CHANNELS": wide, "BLOCK": TILE // wide}
        entries, vertices = len(self.pixels), self.offsets.shape[1]
        strided = (min(blocks(entries, tile["BLOCK"]), PROGRAMS),)
        values, other = q.new_empty(2, entries, wide)
        rows = self.pixels, self.spread, self.chunk_begins, self.counts
        launch(splat_kernel, strided, q, *rows, other, q.stride(0), channels, **tile)
        launch(gather_kernel, strided, other, self.firsts, self.counts, values, **tile)
        for ahead, behind in self.neighbours:
            launch(blur_kernel, strided, values, ahead, behind, self.counts, other, **tile)
            values, other = other, values
        launch(
            slice_kernel, (blocks(len(q), tile["BLOCK"]),), values, self.offsets, self.weights, message,
            len(q), message.stride(0), channels, factor, VERTICES=vertices, ADD=int(add), **tile,
        )  # fmt: skip


@lru_cache(maxsize=2)
def gaussian_lattices(sizes: tuple[Size, ...], deviation: float, device: torch.device) -> KernelLattice:
    """The kernel over positions for images of these sizes; deviation in pixels."""
    highest = np.array(sizes).max(0)[::-1] / deviation
    nothing = torch.empty(0, dtype=torch.uint8, device=device)
    return _normalised(_lattice([nothing] * len(sizes), sizes, highest, deviation, 1.0))


def bilateral_lattices(images: Sequence[Tensor], position: float, colour: float) -> KernelLattice:
    """The kernel over positions and colours of images uint8[H, W, 3]; deviations in pixels and in 0..255."""
    sizes = tuple((image.shape[0], image.shape[1]) for image in images)
    highest = np.array([*np.array(sizes).max(0)[::-1] / position, *[255 / colour] * 3])
    return _normalised(_lattice([image.contiguous() for image in images], sizes, highest, position, colour))


def first_pixels(sizes: Sequence[Size]) -> tuple[list[int], int]:
    """Where the pixels of every image begin, each filled up to fours, and how many there are."""
    *firsts, total = accumulate((_filled(size) for size in sizes), initial=0)
    return firsts, total


def padded_width(channels: int) -> int:
    """Channels that are filtered for so many: whole passes, and the row of the last."""
    whole, rest = divmod(channels, MOST_CHANNELS)
    return whole * MOST_CHANNELS + (row_width(rest) if rest else 0)


def _filled(size: Size) -> int:
    return -(-size[0] * size[1] // 4) * 4


def _normalised(plain: KernelLattice) -> KernelLattice:
    """The lattice with the roots of the kernel's row sums in its weights."""
    sums = torch.empty(len(plain.offsets), 1, device=plain.offsets.device)
    plain.filter(torch.ones_like(sums), sums, weight=1.0, add=False)
    roots = (sums + OFFSET).sqrt()
    spread = plain.spread / roots[:, 0].index_select(0, plain.pixels)
    return replace(plain, weights=plain.weights / roots, spread=spread)


def _lattice(
    images: Sequence[Tensor], sizes: Sequence[Size], highest: np.ndarray, position: float, colour: float
) -> KernelLattice:
    """The filter whose rows are not yet normalised. highest: largest features f64[d]."""
    strides, span = key_strides(highest)
    check_span(span, len(images))
    vertices = len(strides)
    steps = [*strides[:-1], *[0] * (6 - vertices)]
    keys, weights = _embedded(images, sizes, span, steps, vertices, position, colour)
    sorted_keys, order = keys.sort(stable=True)
    fresh = torch.ones_like(order, dtype=torch.int32)
    fresh[1:] = sorted_keys[1:] != sorted_keys[:-1]
    numbers = fresh.cumsum(0, dtype=torch.int32)
    entries, grid = len(keys), (blocks(len(keys), BLOCK),)
    begins, chunk_begins, firsts = (fresh.new_empty(entries + 1) for _ in range(3))
    pixels, spread = torch.empty_like(fresh), torch.empty_like(weights)
    points, offsets = torch.empty_like(keys), torch.empty_like(fresh)
    launch(
        number_kernel, grid, sorted_keys, order, numbers, weights, points, begins, offsets, pixels, spread,
        entries, VERTICES=vertices, BLOCK=BLOCK,
    )  # fmt: skip
    launch(chunk_kernel, grid, numbers, begins, fresh, entries, CHUNK=CHUNK, BLOCK=BLOCK)
    chunks = fresh.cumsum(0, dtype=torch.int32)
    launch(cut_kernel, grid, numbers, begins, chunks, chunk_begins, firsts, entries, BLOCK=BLOCK)
    counts = torch.stack([numbers[-1], chunks[-1]])
    neighbours = fresh.new_empty(vertices, 2, entries)
    strided = min(grid[0], PROGRAMS), 2 * vertices
    launch(neighbour_kernel, strided, points, counts, neighbours, entries, *steps, VERTICES=vertices, BLOCK=BLOCK)
    shape = len(weights) // vertices, vertices
    return KernelLattice(
        offsets.view(shape), weights.view(shape), pixels, spread, chunk_begins, firsts, counts, neighbours
    )


def _embedded(
    images: Sequence[Tensor], sizes: Sequence[Size], span: int, steps: Sequence[int], vertices: int,
    position: float, colour: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Keys i64[E] and weights f32[E] of all images' pixels, vertices of a pixel side by side."""
    firsts, total = first_pixels(sizes)
    keys = torch.empty(total * vertices, dtype=torch.int64, device=images[0].device)
    weights = torch.empty_like(keys, dtype=torch.float32)
    scales = [*feature_scales(vertices - 1).tolist(), *[0.0] * (6 - vertices)]
    for number, (image, size, first) in enumerate(zip(images, sizes, firsts, strict=True)):
        padded, here = _filled(size), slice(first * vertices, None)
        launch(
            embed_kernel, (blocks(padded, BLOCK),), image, keys[here], weights[here], size[0] * size[1],
            padded, size[1], float(position), float(colour), number * span, *scales, *steps,
            COLOURED=int(vertices == 6), BLOCK=BLOCK,
        )  # fmt: skip
    return keys, weights


def row_width(channels: int) -> int:
    """The power of two that holds so many."""
    return 1 << (channels - 1).bit_length()
