"""A small residual network that learns from scratch in about a minute on two CPU cores."""

from __future__ import annotations

from torch import Tensor, nn

from amn_dist.models.backbones.blueprint import Blueprint, initialise_convolutions
from amn_dist.models.norm import GroupNorm

CHANNELS = (32, 48, 96, 128, 160)
GROUPS = 8
"""Groups of every norm; no batch statistics, so a batch may hold one image."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm beside a projection."""

    def __init__(self, channels_in: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv_norm(channels_in, channels, 3, stride=stride),
            nn.ReLU(inplace=True),
            *_conv_norm(channels, channels, 3),
        )
        self.shortcut = nn.Sequential(*_conv_norm(channels_in, channels, 1, stride=stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))


def small() -> Blueprint:
    """Blueprint of the small network: 0.5 GFLOP at 128x128; a map has ceil(size / stride) cells."""
    c1, c2, c3, c4, c5 = CHANNELS
    layers: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            *_conv_norm(3, 24, 3, stride=2),
            nn.ReLU(inplace=True),
            *_conv_norm(24, c1, 3, stride=2),
            nn.ReLU(inplace=True),
        ),
        "block2": ResidualBlock(c1, c2),
        "block3": ResidualBlock(c2, c3, stride=2),
        "block4": ResidualBlock(c3, c4),
        "block5": ResidualBlock(c4, c5),
    }
    initialise_convolutions(layers)
    return Blueprint(layers=layers, ends=tuple(layers), channels=CHANNELS, strides=(4, 4, 8, 8, 8))


def _conv_norm(channels_in: int, channels: int, kernel: int, *, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return conv, GroupNorm(GROUPS, channels)
