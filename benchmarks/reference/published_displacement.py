"""IRN's network as published, with the displacement branch that semantic masks do not depend on: its cost is timed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amn_dist.models.irn import EdgeNet, EdgeUnit, cropped

WIDTHS = (64, 128, 256, 256, 256)
GROUPS = (8, 16, 16, 16, 16)
"""Channels and norm groups of the units on the five taps."""


class DisplacementBranch(nn.Module):
    """Five taps -> displacement [B, 2, h, w] on the second tap's grid."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        ups = [max(stride // strides[2], 1) for stride in strides]
        self.units = nn.ModuleList(
            EdgeUnit(channels_in, width, groups=groups, up=up)
            for channels_in, width, groups, up in zip(channels, WIDTHS, GROUPS, ups, strict=True)
        )
        self.deep = EdgeUnit(sum(WIDTHS[2:]), 256, groups=16, up=strides[2] // strides[1])
        self.fuse = EdgeUnit(sum(WIDTHS[:2]) + 256, 256, groups=16)
        self.project = nn.Conv2d(256, 2, 1, bias=False)

    def forward(self, taps: tuple[Tensor, ...]) -> Tensor:
        d1, d2, d3, d4, d5 = (unit(tap) for unit, tap in zip(self.units, taps, strict=True))
        deep = self.deep(torch.cat([d3, cropped(d4, d3), cropped(d5, d3)], dim=1))
        displacement: Tensor = self.project(self.fuse(torch.cat([d1, d2, cropped(deep, d2)], dim=1)))
        return displacement


class PublishedIrn(nn.Module):
    """An edge network and the branch beside it, over the same features."""

    def __init__(self, network: EdgeNet) -> None:
        super().__init__()
        self.network = network
        self.displacement = DisplacementBranch(network.backbone.channels, network.backbone.strides)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Edge logit [B, 1, h, w] and displacement [B, 2, h, w]."""
        taps = self.network.backbone(image)
        return self.network.edge(taps), self.displacement(taps)
