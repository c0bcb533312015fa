"""The random walk of many images at once on a CUDA device: one kernel a product, whatever the sizes (amn 3.4).

All images lie in one row of cells. An image of h x w cells has a pitch of w + r (r = radius - 1) and r rows and r cells
of zeros before and after it, so that a neighbour outside is a zero inside the buffer and no product needs a bound.
Classes go in fours, which share the links of their image. Links are float32, maps float64: float32 maps would lose 8e-5
of the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from amn_dist.ops.affinity import path_table
from amn_dist.ops.transfer import to_device
from amn_dist.ops.walk.chebyshev import chebyshev_coefficients

BLOCK = 128
"""Cells of a program."""
GROUP = 4
"""Classes that are walked together."""


@dataclass(frozen=True)
class Region:
    """Where an image lies: its first cell among all cells, its grid, its first row of zeros included."""

    first: int
    height: int
    width: int
    reach: int

    @property
    def pitch(self) -> int:
        return self.width + self.reach

    @property
    def inside(self) -> int:
        """The image's own first cell."""
        return self.first + self.reach * (self.pitch + 1)

    @property
    def blocks(self) -> int:
        return -(-self.height * self.pitch // BLOCK)

    @property
    def cells(self) -> int:
        """Cells it takes, zeros on all sides and the rest of its last block included."""
        return 2 * self.reach * (self.pitch + 1) + self.blocks * BLOCK

    def view(self, flat: Tensor) -> Tensor:
        """The image's part [h, w, ...] of values [cells, ...]."""
        rows = flat[self.inside : self.inside + self.height * self.pitch]
        return rows.unflatten(0, (self.height, self.pitch))[:, : self.width]


def walks(
    activations: Sequence[Tensor], edges: Sequence[Tensor], *, radius: int, beta: float, steps: int
) -> list[Tensor]:
    """x (1 - E) T^steps of every image, f32[K, h, w] each. activations: [K, h, w]. edges: [h, w] in [0, 1]."""
    device, reach = edges[0].device, radius - 1
    regions = _regions([(edge.shape[-2], edge.shape[-1]) for edge in edges], reach)
    slots = [(i, k) for i, x in enumerate(activations) for k in range(0, len(x), GROUP)]
    if not slots:
        return [x.float() for x in activations]
    cells = regions[-1].first + regions[-1].cells
    edge = torch.zeros(cells, device=device)
    for region, values in zip(regions, edges, strict=True):
        region.view(edge).copy_(values)
    links, root = _links(edge, regions, radius, beta)
    maps = _regions([(regions[i].height, regions[i].width) for i, _ in slots], reach)
    start = torch.zeros(maps[-1].first + maps[-1].cells, GROUP, device=device, dtype=torch.float64)
    for (i, k), target in zip(slots, maps, strict=True):
        x = activations[i][k : k + GROUP] * (1 - edges[i]) * regions[i].view(root)
        target.view(start)[..., : len(x)].copy_(x.permute(1, 2, 0))
    table = _table([regions[i] for i, _ in slots], maps, device)
    total = _chebyshev(start, links, root, table, radius, steps)
    walked = [torch.empty_like(x, dtype=torch.float32) for x in activations]
    for (i, k), target in zip(slots, maps, strict=True):
        part = walked[i][k : k + GROUP]
        part.copy_((target.view(total)[..., : len(part)] / regions[i].view(root)[..., None]).permute(2, 0, 1))
    return walked


def _regions(grids: Sequence[tuple[int, int]], reach: int) -> list[Region]:
    regions: list[Region] = []
    for height, width in grids:
        first = regions[-1].first + regions[-1].cells if regions else 0
        regions.append(Region(first, height, width, reach))
    return regions


def _table(sources: Sequence[Region], targets: Sequence[Region], device: torch.device) -> Tensor:
    """Work of every program, int64[programs, 6]: first cell of links and of maps, offset, pitch, height, width."""
    rows = []
    for source, target in zip(sources, targets, strict=True):
        offset = np.arange(source.blocks) * BLOCK
        same = [np.full(len(offset), value) for value in (source.pitch, source.height, source.width)]
        rows.append(np.stack([source.inside + offset, target.inside + offset, offset, *same], 1))
    return to_device(np.concatenate(rows), device)


@cache
def _paths(radius: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    directions, cells, begins = path_table(radius)
    return tuple(
        torch.from_numpy(values).to(device, torch.int32).contiguous() for values in (directions, cells, begins)
    )  # type: ignore[return-value]


def _links(edge: Tensor, regions: Sequence[Region], radius: int, beta: float) -> tuple[Tensor, Tensor]:
    """Normalised affinity of every cell to its forward neighbours f32[D, cells], and the root of the degrees f64."""
    directions, cells, begins = _paths(radius, edge.device)
    count = len(directions)
    table = _table(regions, regions, edge.device)
    links = edge.new_zeros(count, len(edge))
    root = torch.ones_like(edge, dtype=torch.float64)
    _affinity_kernel[(len(table), count)](edge, links, table, directions, cells, begins, len(edge), beta, BLOCK)
    _degree_kernel[(len(table),)](links, root, table, directions, len(edge), count, BLOCK)
    _normalise_kernel[(len(table), count)](links, root, table, directions, len(edge), BLOCK)
    return links, root


def _chebyshev(start: Tensor, links: Tensor, root: Tensor, table: Tensor, radius: int, steps: int) -> Tensor:
    """sum_k c_k T_k(S) start; `start` is overwritten."""
    directions = _paths(radius, start.device)[0]
    coefficients = chebyshev_coefficients(steps)
    total = start * float(coefficients[0])
    before, now = torch.zeros_like(start), start
    for k in range(1, len(coefficients)):
        # T_1 = S T_0, every later one 2 S T_k-1 - T_k-2.
        twice = 1.0 if k == 1 else 2.0
        _product_kernel[(len(table),)](
            now, before, total, links, root, table, directions,
            links.shape[1], len(directions), float(coefficients[k]), twice, BLOCK, GROUP,
        )  # fmt: skip
        before, now = now, before
    return total


@triton.jit
def _affinity_kernel(edge, links, table, directions, cells, begins, total, beta, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = table + tl.program_id(0) * 6
    first, offset = tl.load(row), tl.load(row + 2)
    pitch, height, width = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    d = tl.program_id(1)
    dy, dx = tl.load(directions + 2 * d), tl.load(directions + 2 * d + 1)
    local = offset + tl.arange(0, BLOCK)
    y, x = local // pitch, local % pitch
    linked = (x < width) & (x + dx >= 0) & (x + dx < width) & (y + dy < height)
    here = edge + first + tl.arange(0, BLOCK)
    strongest = tl.zeros((BLOCK,), tl.float32)
    for c in range(tl.load(begins + d), tl.load(begins + d + 1)):
        away = tl.load(cells + 2 * c) * pitch + tl.load(cells + 2 * c + 1)
        strongest = tl.maximum(strongest, tl.load(here + away, mask=linked, other=0))
    open_ = 1 - strongest
    affinity = tl.where(open_ > 0, tl.exp2(beta * tl.log2(tl.maximum(open_, 1e-30))), 0.0)
    tl.store(links + d * total + first + tl.arange(0, BLOCK), affinity, mask=linked)


@triton.jit
def _degree_kernel(links, root, table, directions, total, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = table + tl.program_id(0) * 6
    first, offset = tl.load(row), tl.load(row + 2)
    pitch, height, width = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    cell = first + tl.arange(0, BLOCK)
    degree = tl.full((BLOCK,), 1.0, tl.float64)
    for d in range(count):
        away = tl.load(directions + 2 * d) * pitch + tl.load(directions + 2 * d + 1)
        ahead, behind = tl.load(links + d * total + cell), tl.load(links + d * total + cell - away)
        degree += ahead.to(tl.float64) + behind.to(tl.float64)
    local = offset + tl.arange(0, BLOCK)
    inside = (local % pitch < width) & (local // pitch < height)
    tl.store(root + cell, tl.sqrt(degree), mask=inside)


@triton.jit
def _normalise_kernel(links, root, table, directions, total, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = table + tl.program_id(0) * 6
    first, pitch = tl.load(row), tl.load(row + 3)
    d = tl.program_id(1)
    away = tl.load(directions + 2 * d) * pitch + tl.load(directions + 2 * d + 1)
    cell = first + tl.arange(0, BLOCK)
    link = links + d * total + cell
    scaled = tl.load(link).to(tl.float64) / (tl.load(root + cell) * tl.load(root + cell + away))
    tl.store(link, scaled.to(tl.float32))


@triton.jit
def _product_kernel(  # type: ignore[no-untyped-def]
    now, before, sums, links, root, table, directions, total, count, coefficient, twice,
    BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """before <- twice S now - before, sums += coefficient before, for the cells of one program."""
    row = table + tl.program_id(0) * 6
    source, target, offset = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    pitch, height, width = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    lane = tl.arange(0, BLOCK)
    cell = source + lane
    value = (target + lane)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    degree = tl.load(root + cell)
    product = tl.load(now + value) / (degree * degree)[:, None]
    for d in range(count):
        away = tl.load(directions + 2 * d) * pitch + tl.load(directions + 2 * d + 1)
        ahead = tl.load(links + d * total + cell).to(tl.float64)
        behind = tl.load(links + d * total + cell - away).to(tl.float64)
        product += ahead[:, None] * tl.load(now + value + away * GROUP)
        product += behind[:, None] * tl.load(now + value - away * GROUP)
    local = offset + lane
    inside = ((local % pitch < width) & (local // pitch < height))[:, None]
    after = twice * product - tl.load(before + value)
    tl.store(before + value, after, mask=inside)
    tl.store(sums + value, tl.load(sums + value) + coefficient * after, mask=inside)
