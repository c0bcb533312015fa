"""The dilated head of DeepLabV2, which AMN uses too (amn 2.3, 2.6)."""

from __future__ import annotations

from torch import Tensor, nn

RATES = (6, 12, 18, 24)
"""Dilation, and padding, of the parallel convolutions, feature cells."""


class Aspp(nn.Module):
    """Features [B, F, h, w] -> logits [B, C, h, w], the sum of four dilated 3x3 convolutions."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in RATES]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.convs[0](x)
        for conv in list(self.convs)[1:]:
            logits = logits + conv(x)
        return logits
