"""Maps averaged inside regions of an image, on any device, without a loop over pixels (icd 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

EPSILON = 1e-5
"""Least divisor of a share, and least surplus of votes that makes a region foreground."""


@dataclass(frozen=True)
class Membership:
    """How much every cell of a grid belongs to every region: the regions' indicator maps, resized bilinearly.

    rows: int64[N, B, P], N neighbouring pixels of each of P = h * w cells, as rows of a table that holds the regions of
    all images. count: rows of the table. weights: f32[N, P].
    """

    rows: Tensor
    count: int
    weights: Tensor

    def mass(self) -> Tensor:
        """Cells that each region holds, f32[count]."""
        total = torch.zeros(self.count, device=self.rows.device)
        for rows, weights in zip(self.rows, self.weights, strict=True):
            total.index_add_(0, rows.flatten(), weights.expand(rows.shape).flatten())
        return total

    def sums(self, values: Tensor) -> Tensor:
        """Sums f32[count, n] over each region of values f32[B, P, n]."""
        total = values.new_zeros(self.count, values.shape[-1])
        for rows, weights in zip(self.rows, self.weights, strict=True):
            total.index_add_(0, rows.flatten(), (values * weights[:, None]).flatten(0, 1))
        return total

    def spread(self, table: Tensor) -> Tensor:
        """Values f32[B, P, n] of the regions f32[count, n] that each cell belongs to."""
        parts = [table[rows] * weights[:, None] for rows, weights in zip(self.rows, self.weights, strict=True)]
        return torch.stack(parts).sum(0)


def cell_membership(regions: Tensor, size: tuple[int, int]) -> Membership:
    """Membership of the cells of a (h, w) grid in regions int[B, H, W]; corners of grid and image coincide.

    Ids below 0 (outside the photo) are one region of their own. A grid whose step is a whole number of pixels takes
    one pixel a cell, any other grid four.
    """
    ys, xs = (_neighbours(length, cells, regions.device) for length, cells in zip(regions.shape[1:], size, strict=True))
    ids = [regions[:, y][:, :, x].flatten(1).long() for y, _ in ys for x, _ in xs]
    weights = [torch.outer(a, b).flatten() for _, a in ys for _, b in xs]
    number = rows_by_id if regions.device.type == "cpu" else rows_by_rank
    return Membership(*number(torch.stack(ids)), torch.stack(weights))


def rows_by_id(ids: Tensor) -> tuple[Tensor, int]:
    """Rows int64[N, B, P] of a table for the regions of pixels int64[N, B, P], and how many the table has: one for
    every id up to the largest, whatever lies outside last."""
    outside = int(ids.max()) + 1
    images = ids.shape[1]
    begins = (outside + 1) * torch.arange(images, device=ids.device)[:, None]
    return torch.where(ids < 0, outside, ids) + begins, (outside + 1) * images


def rows_by_rank(ids: Tensor) -> tuple[Tensor, int]:
    """As rows_by_id, for devices: a row for every pixel that is looked at, of which each region has the first of its
    own in the order of ids. How many that is is known without asking the device for the largest id."""
    pixels, images, cells = ids.shape
    of_image = ids.clamp(min=-1).transpose(0, 1).flatten(1).contiguous()
    ranks = torch.searchsorted(of_image.sort(1).values, of_image)
    ranks = ranks + of_image.shape[1] * torch.arange(images, device=ids.device)[:, None]
    return ranks.unflatten(1, (pixels, cells)).transpose(0, 1).contiguous(), ids.numel()


def refine_scores(score: Tensor, tags: Tensor, regions: Tensor) -> Tensor:
    """Signed scores of tagged classes made even inside regions, of which each holds one class or background (icd 3).

    score: f32[B, C-1, h, w]. tags: [B, C-1] multi-hot. regions: int[B, H, W] ids of pixels, negative outside the photo.
    Returns f32[B, C-1, h, w]. In a foreground region the winning class keeps the mean of its positive part; every
    other class, and every class of another region, the mean of its negative part.
    """
    cells = cell_membership(regions, (score.shape[-2], score.shape[-1]))
    z = (score.float() * tags[:, :, None, None]).flatten(2).transpose(1, 2)
    positive, negative = z.clamp(min=0), z.clamp(max=0)
    share = positive / z.amax(2, keepdim=True).clamp(min=EPSILON)
    votes, shares, ups, downs = cells.sums(torch.cat([z.sign(), share, positive, negative], 2)).chunk(4, 1)
    mass = cells.mass().clamp(min=EPSILON)[:, None]
    winner = (shares / mass).argmax(1)[:, None] == torch.arange(tags.shape[1], device=tags.device)
    tagged = tags.bool()[:, None].expand(-1, cells.count // len(tags), -1).flatten(0, 1)
    foreground = winner & tagged & (votes.amax(1, keepdim=True) > EPSILON)
    even = cells.spread(torch.where(foreground, ups, downs) / mass)
    return even.transpose(1, 2).unflatten(2, score.shape[-2:])


def sample_regions(regions: Tensor, size: tuple[int, int]) -> Tensor:
    """Ids [B, h, w] of the pixels nearest to the cells of a grid whose corners coincide with the image's."""
    sides = zip(regions.shape[1:], size, strict=True)
    rows, columns = (_nearest(length, cells, regions.device) for length, cells in sides)
    return regions[:, rows][:, :, columns]


@lru_cache(maxsize=64)  # as the weights below: a copy to a device makes it wait, so there is one for every size
@torch.inference_mode(False)
def _nearest(length: int, cells: int, device: torch.device) -> Tensor:
    step = max(cells - 1, 1)
    return ((2 * torch.arange(cells) * (length - 1) + step) // (2 * step)).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _neighbours(length: int, cells: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Pixels on both sides of every cell along one axis, and their weights; one side when all cells lie on pixels."""
    position = torch.arange(cells, dtype=torch.float64) * (length - 1) / max(cells - 1, 1)
    before = position.floor().long()
    after = (before + 1).clamp(max=length - 1)
    share = (position - before).float()
    sides = [(before, 1 - share)] if not share.any() else [(before, 1 - share), (after, share)]
    return [(pixel.to(device), weight.to(device)) for pixel, weight in sides]
