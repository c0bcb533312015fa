"""The backbones there are: how each is built, which strides it offers, what it is fed, where its weights are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amn_dist.models.backbones.blueprint import Blueprint
from amn_dist.models.backbones.caffe_resnet import resnet101
from amn_dist.models.backbones.resnet import resnet50
from amn_dist.models.backbones.small import small
from amn_dist.models.backbones.vgg import vgg16, vgg16_deeplab


@dataclass(frozen=True)
class Architecture:
    """What is known of a backbone.

    build: from the stride of the last tap. strides: those it offers. colours: inputs (ops.normalise) that weights of it
    are made for: the first those of ImageNet, which are meant where none is chosen, the last those of the published
    network. torchvision: its ImageNet weights there, by their name and that of their file, amn 2.1.
    widest: floats a pixel of its input that go into and come out of its widest convolution.
    """

    build: Callable[[int], Blueprint]
    strides: tuple[int, ...]
    colours: tuple[str, ...] = ("imagenet",)
    torchvision: tuple[str, str] | None = None
    widest: int = 0


RESNET50 = ("ResNet50_Weights", "resnet50-0676ba61.pth")
VGG16 = ("VGG16_Weights", "vgg16-397923af.pth")

ARCHITECTURES = {
    "resnet50": Architecture(lambda stride: resnet50(), (16,), torchvision=RESNET50, widest=24),
    "resnet101": Architecture(lambda stride: resnet101(), (8,), ("caffe",), widest=48),
    "vgg16": Architecture(vgg16, (16, 8), torchvision=VGG16, widest=128),
    "vgg16_deeplab": Architecture(
        lambda stride: vgg16_deeplab(), (8,), ("imagenet", "centred"), torchvision=VGG16, widest=128
    ),
    "small": Architecture(lambda stride: small(), (8,), widest=9),
}
"""By the name that `backbone.name` gives."""
