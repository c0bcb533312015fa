"""DeepLabV2: a backbone, the dilated head, and the maximum over image scales (amn 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.aspp import Aspp
from amn_dist.models.backbones.backbone import Backbone, build_backbone
from amn_dist.models.backbones.frozen_norm import folded_norms
from amn_dist.models.precision import autocast_type

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config

BRANCHES = (0.5, 0.75)
"""Published scales beside the full image."""


class DeepLab(nn.Module):
    """Segmentation network."""

    def __init__(self, backbone: Backbone, num_classes: int, branches: tuple[float, ...] = BRANCHES) -> None:
        """num_classes: C, background included. branches: image scales seen beside the full image; may be empty."""
        super().__init__()
        self.backbone = backbone
        self.aspp = Aspp(backbone.channels[-1], num_classes)
        self.branches = tuple(branches)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of normalised images [B, 3, H, W].

        In training: a list of the full image's logits [B, C, h, w], each branch's on its own grid, and the
        element-wise maximum of all at [h, w]; without branches the first alone. In evaluation: the maximum.
        """
        # A device folds frozen norms into the weights of a training step, once for all scales.
        folding = self.training and torch.is_grad_enabled() and image.device.type != "cpu"
        with folded_norms(self.backbone, autocast_type(image.device) if folding else None):
            whole = self.logits(image)
            beside = [self.logits(_scaled(image, scale)) for scale in self.branches]
        highest = whole
        for logits in beside:
            resized = functional.interpolate(logits, whole.shape[-2:], mode="bilinear", align_corners=False)
            highest = torch.maximum(highest, resized)
        if not self.training:
            return highest
        return [whole, *beside, highest] if beside else [whole]

    def logits(self, image: Tensor) -> Tensor:
        """Logits [B, C, h, w] of one scale."""
        return self.aspp(self.backbone(image)[-1])


def segment_network(config: Config, num_classes: int) -> DeepLab:
    """The configured segmentation network with random weights."""
    return DeepLab(build_backbone(config.segment.backbone), num_classes, branches=config.segment.branches)


def _scaled(image: Tensor, scale: float) -> Tensor:
    # The scale, not the size, is handed over: sampling then steps by exactly 1 / scale, as in the published runs.
    return functional.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
