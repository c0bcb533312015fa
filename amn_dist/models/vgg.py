"""VGG-16 convolutions in torchvision's layout, output stride 16 or 8."""

from __future__ import annotations

from torch import nn

from amn_dist.models.blueprint import Blueprint, initialise_convolutions

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions between two pools."""

POOL4 = "23"
"""torchvision's number of the fourth pool."""


def vgg16(stride: int = 16) -> Blueprint:
    """Blueprint of VGG-16 without its last pool; layers carry torchvision's numbers in `features`.

    Taps: after pool2, after the third and fourth block, after the first and the last convolution of the fifth.
    Pools round up, so that a map has ceil(size / stride) cells. At stride 8 the fourth pool is left out and the fifth
    block dilated by 2.
    """
    layers = _numbered_layers(dilation=1 if stride == 16 else 2)
    if stride == 8:
        del layers[POOL4]
    initialise_convolutions(layers)
    return Blueprint(
        layers=layers,
        ends=("9", "15", "22", "25", "29"),
        channels=(128, 256, 512, 512, 512),
        strides=(4, 4, 8, stride, stride),
    )


def _numbered_layers(*, dilation: int) -> dict[str, nn.Module]:
    layers: list[nn.Module] = []
    channels_in = 3
    for number, block in enumerate(BLOCKS, start=1):
        step = dilation if number == len(BLOCKS) else 1
        for channels in block:
            layers += [nn.Conv2d(channels_in, channels, 3, padding=step, dilation=step), nn.ReLU(inplace=True)]
            channels_in = channels
        if number < len(BLOCKS):
            layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
    return {str(index): layer for index, layer in enumerate(layers)}
