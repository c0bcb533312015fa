"""ResNet-50 in torchvision's layout with output stride 16 (amn 2.1)."""

from __future__ import annotations

from torch import Tensor, nn

from amn_dist.models.backbones.blueprint import RESIDUAL_GAIN, Blueprint, FixedBatchNorm, initialise_convolutions

EXPANSION = 4
"""Output channels of a block over the channels of its 3x3 convolution."""


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3 (which carries the stride), 1x1; torchvision's v1.5 names."""

    def __init__(self, channels_in: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        channels = EXPANSION * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = FixedBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = FixedBatchNorm(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = FixedBatchNorm(channels, gain=RESIDUAL_GAIN)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, FixedBatchNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return self.relu(branch + self.downsample(x))


def resnet50() -> Blueprint:
    """Blueprint of ResNet-50, strides (2, 2, 2, 1), no dilation; taps s1 to s5 of amn 2.4."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        "bn1": FixedBatchNorm(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
        "layer1": _layer(64, 64, blocks=3),
        "layer2": _layer(256, 128, blocks=4, stride=2),
        "layer3": _layer(512, 256, blocks=6, stride=2),
        "layer4": _layer(1024, 512, blocks=3),
    }
    initialise_convolutions(layers)
    return Blueprint(
        layers=layers,
        ends=("maxpool", "layer1", "layer2", "layer3", "layer4"),
        channels=(64, 256, 512, 1024, 2048),
        strides=(4, 4, 8, 16, 16),
    )


def _layer(channels_in: int, width: int, *, blocks: int, stride: int = 1) -> nn.Sequential:
    first = Bottleneck(channels_in, width, stride=stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width) for _ in range(blocks - 1)))
