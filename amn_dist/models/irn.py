"""Inter-pixel relation network: class boundaries learned from pairs of labels (amn 2.4, 3.3).

D directions of a radius, N sources in each (amn 2.5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.displacement import DisplacementBranch
from amn_dist.models.edge_unit import Unit, crop
from amn_dist.ops.affinity import pair_affinity, pair_labels
from amn_dist.records import IGNORE

EPSILON = 1e-5
"""Added inside logarithms and to pair counts, as published (amn 3.3)."""

EDGE_CHANNELS = 32
EDGE_GROUPS = 4


class EdgeBranch(nn.Module):
    """Five taps -> edge logit [B, 1, h, w] on the second tap's grid."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            Unit(width, EDGE_CHANNELS, groups=EDGE_GROUPS, up=stride // strides[1])
            for width, stride in zip(channels, strides, strict=True)
        )
        self.fuse = nn.Conv2d(EDGE_CHANNELS * len(channels), 1, 1)

    def forward(self, taps: tuple[Tensor, ...]) -> Tensor:
        maps = [unit(tap) for unit, tap in zip(self.units, taps, strict=True)]
        fused: Tensor = self.fuse(torch.cat([crop(map_, maps[1]) for map_ in maps], dim=1))
        return fused


class EdgeNet(nn.Module):
    """Backbone and edge branch; the displacement branch is optional and does not change the edge (amn 2.4)."""

    def __init__(self, backbone: Backbone, *, displacement: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.edge = EdgeBranch(backbone.channels, backbone.strides)
        self.displacement = DisplacementBranch(backbone.channels, backbone.strides) if displacement else None

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Edge logit [B, 1, h, w] of normalised images [B, 3, H, W], before the sigmoid.

        With the displacement branch also displacement [B, 2, h, w] (dy, dx), cells.
        """
        taps = self.backbone(image)
        edge: Tensor = self.edge(taps)
        return edge if self.displacement is None else (edge, self.displacement(taps))


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
