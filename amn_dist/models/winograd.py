"""3x3 convolutions that learn by Winograd's products: float32, on CPUs, each pass by what is faster for its shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from amn_dist.ops.winograd import suits_winograd, winograd_conv, winograd_weight_gradient, winograd_weights

CHANNEL_PRODUCT = 128 * 256
"""Channels in times channels out from which outputs and gradients of inputs are made faster than by the direct sum;
gradients of weights always are. Measured on two AVX2 cores with 48x48 to 128x128 pixels."""
PIXELS = 1024
"""Pixels of a batch below which the direct sum is as fast, since the weights are transformed anew in every pass."""


class WinogradConv2d(nn.Conv2d):
    """A convolution that is an nn.Conv2d in all but speed and the last bits; direct on devices and under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        few = x.shape[0] * x.shape[2] * x.shape[3] < PIXELS
        if few or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        out: Tensor = _Convolution.apply(x, self.weight, self.bias, self.dilation[0])
        return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        if _has_many_channels(weight):
            return winograd_conv(x, winograd_weights(weight), bias, dilation=dilation)
        return torch.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _input_gradient(x, weight, gradient, ctx.dilation) if of_x else None,
            winograd_weight_gradient(x, gradient, dilation=ctx.dilation) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _input_gradient(x: Tensor, weight: Tensor, gradient: Tensor, dilation: int) -> Tensor:
    if _has_many_channels(weight):
        return winograd_conv(gradient, winograd_weights(weight, transposed=True), dilation=dilation)
    around = [dilation, dilation]
    gradients = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], around, around, False, [0, 0], 1, [True, False, False]
    )
    of_input: Tensor = gradients[0]
    return of_input


def _has_many_channels(weight: Tensor) -> bool:
    return weight.shape[0] * weight.shape[1] >= CHANNEL_PRODUCT


def can_use_winograd(conv: nn.Conv2d) -> bool:
    """Whether Winograd's products make this convolution: 3x3, of stride 1, padded by its dilation."""
    plain = (conv.kernel_size, conv.stride, conv.groups, conv.padding_mode) == ((3, 3), (1, 1), 1, "zeros")
    around = conv.padding == conv.dilation and conv.dilation[0] == conv.dilation[1]
    return plain and around and suits_winograd(conv.in_channels, conv.out_channels)


def use_winograd(network: nn.Module) -> None:
    """Replace every convolution of a network that Winograd's products can make; weights stay the same objects."""
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) is nn.Conv2d and can_use_winograd(conv):
                setattr(parent, name, _winograd_layer(conv))


def _winograd_layer(conv: nn.Conv2d) -> WinogradConv2d:
    layer = WinogradConv2d(
        conv.in_channels,
        conv.out_channels,
        3,
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        device="meta",
    )
    layer.weight, layer.bias = conv.weight, conv.bias
    return layer.train(conv.training)
