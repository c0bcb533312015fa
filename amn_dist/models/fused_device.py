"""Convolution layers rewritten for inference on a GPU: folded norms, weights in their type once, fused ReLU and sums.

cuDNN's fused convolutions do what the plain operations behind them do with one pass over each map less. A layer for
which it has none (few channels, an old card) does the plain ones from then on; so does every layer on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.device_conv import tried
from amn_dist.models.fused import Forms, Layer, folded, fuse, geometry


class DeviceConv(nn.Module):
    """Convolution and bias, then ReLU if there is one."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Layer, *, relu: bool, precision: torch.dtype) -> None:
        super().__init__()
        weight, bias = folded(*layer)
        self.relu, self.fused = relu, relu
        self.padding, self.stride, self.dilation, self.groups = geometry(layer[0])
        self.register_buffer("weight", weight.to(precision))
        self.register_buffer("bias", bias.to(precision))

    def forward(self, x: Tensor) -> Tensor:
        steps = (self.stride, self.padding, self.dilation, self.groups)
        if self.fused:
            result = tried(lambda: torch.ops.aten.cudnn_convolution_relu(x, self.weight, self.bias, *steps))
            if result is not None:
                return result
            self.fused = False
        plain = functional.conv2d(x, self.weight, self.bias, *steps)
        return plain.relu_() if self.relu else plain


class DeviceSum(nn.Module):
    """Convolution and bias added to a map, then ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Layer, *, precision: torch.dtype) -> None:
        super().__init__()
        weight, bias = folded(*layer)
        self.fused = True
        self.padding, self.stride, self.dilation, self.groups = geometry(layer[0])
        self.register_buffer("weight", weight.to(precision))
        self.register_buffer("bias", bias.to(precision))

    def forward(self, x: Tensor, total: Tensor) -> Tensor:
        steps = (self.stride, self.padding, self.dilation, self.groups)
        if self.fused:
            fused = torch.ops.aten.cudnn_convolution_add_relu
            result = tried(lambda: fused(x, self.weight, total, 1.0, self.bias, *steps))
            if result is not None:
                return result
            self.fused = False
        return functional.conv2d(x, self.weight, self.bias, *steps).add_(total).relu_()


class FloatTaps(Sequence[Tensor]):
    """Taps of a backbone in float32, each cast when it is read: most networks read the last alone."""

    def __init__(self, taps: Sequence[Tensor]) -> None:
        self._taps = taps

    def __len__(self) -> int:
        return len(self._taps)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...

    @overload
    def __getitem__(self, place: slice) -> FloatTaps: ...

    def __getitem__(self, place: int | slice) -> Tensor | FloatTaps:
        return FloatTaps(self._taps[place]) if isinstance(place, slice) else self._taps[place].float()


class CastBackbone(nn.Module):
    """A backbone whose weights lie in half precision; its taps are handed on in float32, to which heads keep."""

    def __init__(self, backbone: Backbone, precision: torch.dtype) -> None:
        super().__init__()
        fuse(backbone, device_forms(precision))
        self.inner, self.precision = backbone.to(precision), precision
        self.strides, self.colour = backbone.strides, backbone.colour

    def forward(self, x: Tensor) -> FloatTaps:
        return FloatTaps(self.inner(x.to(self.precision)))


def device_forms(precision: torch.dtype) -> Forms:
    """The layers of a GPU, their weights in this type."""
    return Forms(partial(DeviceConv, precision=precision), partial(DeviceSum, precision=precision))
