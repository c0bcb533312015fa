"""Convolution layers rewritten for inference on a GPU: folded norms, weights in their type once, fused ReLU and sums.

cuDNN's fused convolutions do what the plain operations behind them do with one pass over each map less. A layer for
which it has none (few channels, an old card) does the plain ones from then on; so does every layer on a CPU.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.device_conv import tried
from amn_dist.models.fused import Forms, Layer, folded, geometry


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


def device_forms(precision: torch.dtype) -> Forms:
    """The layers of a GPU, their weights in this type."""
    return Forms(partial(DeviceConv, precision=precision), partial(DeviceSum, precision=precision))
