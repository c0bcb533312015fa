"""Inter-pixel relation network: class boundaries learned from pairs of labels (amn 2.4, 3.3).

D directions of a radius, N sources in each (amn 2.5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.norm import GroupNorm
from amn_dist.ops.affinity import pair_affinity, pair_labels
from amn_dist.records import IGNORE

EPSILON = 1e-5
"""Added inside logarithms and to pair counts, as published (amn 3.3)."""

EDGE_CHANNELS = 32
EDGE_GROUPS = 4


class EdgeUnit(nn.Module):
    """1x1 convolution without bias, group norm, bilinear upsampling by an integer, ReLU."""

    def __init__(self, channels_in: int, channels: int, *, groups: int, up: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm = GroupNorm(groups, channels)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if self.up > 1:
            x = functional.interpolate(x, scale_factor=float(self.up), mode="bilinear", align_corners=False)
        return functional.relu(x)


class EdgeBranch(nn.Module):
    """Five taps -> edge logit [B, 1, h, w] on the second tap's grid."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            EdgeUnit(width, EDGE_CHANNELS, groups=EDGE_GROUPS, up=stride // strides[1])
            for width, stride in zip(channels, strides, strict=True)
        )
        self.fuse = nn.Conv2d(EDGE_CHANNELS * len(channels), 1, 1)

    def forward(self, taps: tuple[Tensor, ...]) -> Tensor:
        maps = [unit(tap) for unit, tap in zip(self.units, taps, strict=True)]
        fused: Tensor = self.fuse(torch.cat([cropped(x, maps[1]) for x in maps], dim=1))
        return fused


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """The top left of x at the size of another map."""
    return x[..., : like.shape[-2], : like.shape[-1]]


class EdgeNet(nn.Module):
    """Backbone and edge branch (amn 2.4)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.edge = EdgeBranch(backbone.channels, backbone.strides)

    def forward(self, image: Tensor) -> Tensor:
        """Edge logit [B, 1, h, w] of normalised images [B, 3, H, W], before the sigmoid."""
        edge: Tensor = self.edge(self.backbone(image))
        return edge


def affinity_losses(edge: Tensor, labels: Tensor, radius: int = 10, num_classes: int = IGNORE) -> tuple[Tensor, Tensor]:
    """Affinity losses L+ and L- of a batch (amn 3.3); an edge-only run minimises (L+ + L-) / 2.

    edge: logit [B, 1, h, w]; the sigmoid is applied here. labels: uint8[B, h, w]; a pair with a label of num_classes
    or more counts nowhere. radius: cells. A kind of pair that does not occur contributes zero.
    """
    sums = affinity_loss_parts(edge, labels, radius, num_classes)
    counts = pair_counts(labels, radius, num_classes)
    background, foreground, negative = (part / (count + EPSILON) for part, count in zip(sums, counts, strict=True))
    return (background + foreground) / 2, negative


def affinity_loss_parts(edge: Tensor, labels: Tensor, radius: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the affinity loss over equal background, equal foreground and different pairs; see affinity_losses."""
    affinity = pair_affinity(torch.sigmoid(edge.float()).squeeze(1), radius)
    background, foreground, negative = pair_labels(labels, radius, num_classes)
    attract = -torch.log(affinity + EPSILON)
    repel = -torch.log(1 + EPSILON - affinity)
    return (attract * background).sum(), (attract * foreground).sum(), (repel * negative).sum()


def pair_counts(labels: Tensor, radius: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """How many pairs affinity_loss_parts sums over: equal background, equal foreground, different; int64 each."""
    background, foreground, negative = pair_labels(labels, radius, num_classes)
    return background.sum(), foreground.sum(), negative.sum()
