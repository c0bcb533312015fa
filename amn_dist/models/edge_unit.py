"""The unit both branches of IRN are made of (amn 2.4)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.norm import GroupNorm


class Unit(nn.Module):
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


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The top left of x at the size of another map."""
    return x[..., : like.shape[-2], : like.shape[-1]]
