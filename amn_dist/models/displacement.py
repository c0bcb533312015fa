"""The displacement branch of IRN: part of published checkpoints, without effect on semantic masks (amn 2.4, 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amn_dist.models.edge_unit import Unit, crop
from amn_dist.ops.affinity import pair_labels, path_directions

EPSILON = 1e-5
"""Added to pair counts, as published (amn 3.3)."""

WIDTHS = (64, 128, 256, 256, 256)
GROUPS = (8, 16, 16, 16, 16)
"""Channels and norm groups of the units on the five taps (amn 2.4)."""


class DisplacementBranch(nn.Module):
    """Five taps -> displacement [B, 2, h, w] on the second tap's grid, cells.

    In evaluation `mean_shift` f32[2], the mean displacement over a data set, is subtracted.
    """

    mean_shift: Tensor

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        ups = [max(stride // strides[2], 1) for stride in strides]
        self.units = nn.ModuleList(
            Unit(channels_in, width, groups=groups, up=up)
            for channels_in, width, groups, up in zip(channels, WIDTHS, GROUPS, ups, strict=True)
        )
        self.deep = Unit(sum(WIDTHS[2:]), 256, groups=16, up=strides[2] // strides[1])
        self.fuse = Unit(sum(WIDTHS[:2]) + 256, 256, groups=16)
        self.project = nn.Conv2d(256, 2, 1, bias=False)
        self.register_buffer("mean_shift", torch.zeros(2))

    def forward(self, taps: tuple[Tensor, ...]) -> Tensor:
        d1, d2, d3, d4, d5 = (unit(tap) for unit, tap in zip(self.units, taps, strict=True))
        deep = self.deep(torch.cat([d3, crop(d4, d3), crop(d5, d3)], dim=1))
        shift: Tensor = self.project(self.fuse(torch.cat([d1, d2, crop(deep, d2)], dim=1)))
        return shift if self.training else shift - self.mean_shift.view(1, 2, 1, 1)


def displacement_losses(displacement: Tensor, labels: Tensor, radius: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Displacement losses over equal foreground and equal background pairs (amn 3.3).

    displacement: [B, 2, h, w] (dy, dx), cells. labels: uint8[B, h, w]. The published total adds half of their sum.
    """
    background, foreground, _ = pair_labels(labels, radius, num_classes)
    directions = torch.tensor(path_directions(radius), dtype=torch.float32, device=displacement.device)
    difference = _pair_differences(displacement.float(), radius)
    drawn = (difference - directions.T[None, :, :, None]).abs().sum(1)
    still = difference.abs().sum(1)
    return (
        (drawn * foreground).sum() / (2 * foreground.sum() + EPSILON),
        (still * background).sum() / (2 * background.sum() + EPSILON),
    )


def _pair_differences(displacement: Tensor, radius: int) -> Tensor:
    """Source minus destination for every pair, [B, 2, h, w] -> [B, 2, D, N]."""
    height, width = displacement.shape[-2:]
    reach = radius - 1
    rows, columns = height - reach, width - 2 * reach
    source = displacement[..., :rows, reach : reach + columns]
    pairs = [
        source - displacement[..., dy : dy + rows, reach + dx : reach + dx + columns]
        for dy, dx in path_directions(radius)
    ]
    return torch.stack(pairs, dim=2).flatten(3)
