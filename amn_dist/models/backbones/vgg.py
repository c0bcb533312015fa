"""VGG-16 convolutions in torchvision's layout, output stride 16 or 8."""

from __future__ import annotations

from torch import nn

from amn_dist.models.backbones.blueprint import Blueprint, initialise_convolutions

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
    return _blueprint(layers, stride)


def vgg16_deeplab() -> Blueprint:
    """Blueprint of VGG-16 as DeepLab lays it out, output stride 8 (icd 4.1): a map has (size - 1) // 8 + 1 cells.

    Pools take 3x3 pixels, the fourth without a step; the fifth block is dilated by 2. Weights and layer numbers are
    those of vgg16.
    """
    layers = _numbered_layers(dilation=2)
    for name, layer in layers.items():
        if isinstance(layer, nn.MaxPool2d):
            layers[name] = nn.MaxPool2d(3, stride=1 if name == POOL4 else 2, padding=1)
    initialise_convolutions(layers)
    return _blueprint(layers, 8)


def numbered_convolutions() -> dict[str, str]:
    """Layer number in `features` of every convolution, by its usual name: block_index, both from 1."""
    names = [f"{block}_{index}" for block, widths in enumerate(BLOCKS, 1) for index in range(1, len(widths) + 1)]
    layers = _numbered_layers(dilation=1).items()
    return dict(zip(names, (number for number, layer in layers if isinstance(layer, nn.Conv2d)), strict=True))


def _blueprint(layers: dict[str, nn.Module], stride: int) -> Blueprint:
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
