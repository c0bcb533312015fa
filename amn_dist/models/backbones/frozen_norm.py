"""A convolution and a norm that is never trained; on a GPU a training step folds the one into the other.

Such a norm is an affine map of every channel. Folded into the weights before it, once a forward pass for all scales of
an image, it needs no pass of its own, forward or backward, and what follows, sum and ReLU, goes into the convolution's.
Gradients of the folded weights times the gain are those of the weights; checkpoints hold what they held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.backbones.blueprint import EPSILON, FixedBatchNorm
from amn_dist.models.device_conv import Geometry, fused_conv, plain_conv


class ConvNorm(nn.Sequential):
    """Convolution `conv` without bias and frozen norm `bn`. folded: weight and bias of both, inside `folded_norms`."""

    conv: nn.Conv2d
    bn: FixedBatchNorm
    folded: tuple[Tensor, Tensor] | None = None
    fused = True
    """Whether cuDNN's form with a ReLU is tried."""

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is None:
            return cast(Tensor, super().forward(x))
        return self._folded_conv(x, None, relu=False)

    def activated(self, x: Tensor, total: Tensor | None = None) -> Tensor:
        """ReLU of the normalised map, or of its sum with a map of its shape."""
        if self.folded is None:
            normalised = super().forward(x)
            return functional.relu_(normalised if total is None else normalised + total)
        return self._folded_conv(x, total, relu=True)

    def _folded_conv(self, x: Tensor, total: Tensor | None, *, relu: bool) -> Tensor:
        assert self.folded is not None
        weight, bias = self.folded
        result: Tensor = _FoldedConv.apply(x.to(weight.dtype), weight, bias, total, relu, self)
        return result

    @property
    def geometry(self) -> Geometry:
        padding, stride, dilation = (list(cast(Sequence[int], value)) for value in
                                     (self.conv.padding, self.conv.stride, self.conv.dilation))  # fmt: skip
        return padding, stride, dilation, self.conv.groups


@contextmanager
def folded_norms(network: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Frozen norms of a network folded into its weights inside, in this type; None: as they are."""
    layers = [] if dtype is None else [module for module in network.modules() if isinstance(module, ConvNorm)]
    if layers and dtype is not None:
        gains, biases = _affine([layer.bn for layer in layers], dtype)
        for layer, gain, bias in zip(layers, gains, biases, strict=True):
            layer.folded = _FoldedWeight.apply(layer.conv.weight, gain[:, None, None, None], dtype), bias
    try:
        yield
    finally:
        for layer in layers:
            layer.folded = None


@torch.no_grad()
def _affine(norms: Sequence[FixedBatchNorm], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Gains f32[C], and biases [C] of this type, of all norms; a few kernels on a device."""
    deviations = torch._foreach_add([norm.running_var for norm in norms], EPSILON)
    torch._foreach_sqrt_(deviations)
    gains = torch._foreach_div([norm.weight for norm in norms], deviations)
    shifts = torch._foreach_mul([norm.running_mean for norm in norms], gains)
    shifts = torch._foreach_sub([norm.bias for norm in norms], shifts)
    biases = [torch.empty_like(shift, dtype=dtype) for shift in shifts]
    torch._foreach_copy_(biases, shifts)
    return list(gains), biases


class _FoldedWeight(torch.autograd.Function):
    """Weight times gain, in the type of the convolution."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.gain, ctx.dtype = gain, weight.dtype
        return torch.mul(weight, gain, out=torch.empty_like(weight, dtype=dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return torch.mul(gradient, ctx.gain, out=torch.empty_like(gradient, dtype=ctx.dtype)), None, None


class _FoldedConv(torch.autograd.Function):
    """Convolution and bias; with relu, ReLU of that or of its sum with a map."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, total: Tensor | None, relu: bool, layer: ConvNorm
    ) -> Tensor:
        ctx.geometry, ctx.relu = layer.geometry, relu
        result = fused_conv(x, weight, bias, total, ctx.geometry) if relu and layer.fused else None
        if result is None:
            layer.fused = layer.fused and not relu
            result = plain_conv(x, weight, bias, ctx.geometry)
            if relu:
                result = functional.relu_(result if total is None else result.add_(total))
        ctx.save_for_backward(x, weight, result if relu else None)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, result = ctx.saved_tensors
        if ctx.relu:
            gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        padding, stride, dilation, groups = ctx.geometry
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        none = [0] * len(stride)
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, stride, padding, dilation, False, none, groups, wanted
        )
        return to_x, to_weight, None, gradient if ctx.needs_input_grad[3] else None, None, None
