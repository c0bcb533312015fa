"""ResNet-101 in the Caffe layout DeepLab was published with, output stride 8 (amn 2.6)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from amn_dist.models.backbones.blueprint import RESIDUAL_GAIN, Blueprint, FixedBatchNorm, initialise_convolutions
from amn_dist.models.backbones.frozen_norm import ConvNorm

EXPANSION = 4
"""Output channels of a block over the channels of its 3x3 convolution."""


class CaffeBottleneck(nn.Module):
    """Residual block 1x1 (which carries the stride), dilated 3x3, 1x1; deeplab-pytorch's names."""

    def __init__(self, channels_in: int, width: int, *, stride: int = 1, dilation: int = 1, project: bool) -> None:
        super().__init__()
        channels = EXPANSION * width
        self.reduce = _conv_norm(channels_in, width, 1, stride=stride)
        self.conv3x3 = _conv_norm(width, width, 3, padding=dilation, dilation=dilation)
        self.increase = _conv_norm(width, channels, 1, gain=RESIDUAL_GAIN)
        self.shortcut = _conv_norm(channels_in, channels, 1, stride=stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv3x3.activated(self.reduce.activated(x))
        return self.increase.activated(branch, self.shortcut(x))


def resnet101() -> Blueprint:
    """Blueprint of the Caffe-style ResNet-101; norm gains and shifts are never trained."""
    stem = OrderedDict(
        conv1=_conv_norm(3, 64, 7, stride=2, padding=3),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    )
    layers: dict[str, nn.Module] = {
        "layer1": nn.Sequential(stem),
        "layer2": _layer(64, 64, blocks=3),
        "layer3": _layer(256, 128, blocks=4, stride=2),
        "layer4": _layer(512, 256, blocks=23, dilation=2),
        "layer5": _layer(1024, 512, blocks=3, dilation=4),
    }
    initialise_convolutions(layers)
    return Blueprint(
        layers=layers,
        ends=tuple(layers),
        channels=(64, 256, 512, 1024, 2048),
        strides=(4, 4, 8, 8, 8),
    )


def _layer(channels_in: int, width: int, *, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = CaffeBottleneck(channels_in, width, stride=stride, dilation=dilation, project=True)
    rest = (CaffeBottleneck(EXPANSION * width, width, dilation=dilation, project=False) for _ in range(blocks - 1))
    return nn.Sequential(OrderedDict((f"block{i}", block) for i, block in enumerate([first, *rest], start=1)))


def _conv_norm(
    channels_in: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    gain: float = 1.0,
) -> ConvNorm:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, bias=False)
    return ConvNorm(OrderedDict(conv=conv, bn=FixedBatchNorm(channels, gain=gain, trainable=False)))
