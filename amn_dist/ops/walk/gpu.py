"""The random walk of many images at once on a CUDA device: one kernel a product, whatever the sizes (amn 3.4).

All images lie in one row of cells. An image of h x w cells has a pitch of w + r (r = radius - 1) and r rows and r cells
of zeros before and after it, so that a neighbour outside is a zero inside the buffer and no product needs a bound.
Classes go in fours, which share the links of their image. Links are float32, maps float64: float32 maps would lose 8e-5
of the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.kernels.launching import blocks, launch
from amn_dist.ops.kernels.walk import affinity_kernel, degree_kernel, normalise_kernel, product_kernel
from amn_dist.ops.paths import path_tensors
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
        return blocks(self.height * self.pitch, BLOCK)

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


def _links(edge: Tensor, regions: Sequence[Region], radius: int, beta: float) -> tuple[Tensor, Tensor]:
    """Normalised affinity of every cell to its forward neighbours f32[D, cells], and the root of the degrees f64."""
    directions, cells, begins = path_tensors(radius, edge.device)
    count = len(directions)
    table = _table(regions, regions, edge.device)
    links = edge.new_zeros(count, len(edge))
    root = torch.ones_like(edge, dtype=torch.float64)
    each = len(table), count
    launch(affinity_kernel, each, edge, links, table, directions, cells, begins, len(edge), beta, BLOCK=BLOCK)
    launch(degree_kernel, each[:1], links, root, table, directions, len(edge), count, BLOCK=BLOCK)
    launch(normalise_kernel, each, links, root, table, directions, len(edge), BLOCK=BLOCK)
    return links, root


def _chebyshev(start: Tensor, links: Tensor, root: Tensor, table: Tensor, radius: int, steps: int) -> Tensor:
    """sum_k c_k T_k(S) start; `start` is overwritten."""
    directions = path_tensors(radius, start.device)[0]
    coefficients = chebyshev_coefficients(steps)
    total = start * float(coefficients[0])
    before, now = torch.zeros_like(start), start
    for k in range(1, len(coefficients)):
        # T_1 = S T_0, every later one 2 S T_k-1 - T_k-2.
        twice = 1.0 if k == 1 else 2.0
        launch(
            product_kernel, (len(table),), now, before, total, links, root, table, directions,
            links.shape[1], len(directions), float(coefficients[k]), twice, fused=True, BLOCK=BLOCK, GROUP=GROUP,
        )  # fmt: skip
        before, now = now, before
    return total
