"""The classifier whose last layer is also read as class activation maps (amn 2.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.backbones.backbone import Backbone


class CamNet(nn.Module):
    """Backbone and a 1x1 convolution over C-1 foreground classes."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        """num_classes: C, background included."""
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.channels[-1], num_classes - 1, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Class logits [B, C-1] of normalised images [B, 3, H, W]."""
        pooled = functional.adaptive_avg_pool2d(self.backbone(image)[-1], 1)
        return self.classifier(pooled).flatten(1)

    def maps(self, image: Tensor) -> Tensor:
        """Class activation maps [B, C-1, h, w] on the last tap's grid, values >= 0 (amn 1.2)."""
        return functional.relu(self.classifier(self.backbone(image)[-1]))
