"""Convolution layers rewritten for inference: which have a fused form, and that of a CPU.

Frozen batch norm is an affine map per channel: it moves into the weights before it. What is left of a block reads and
writes each map once per convolution. Results agree with the trained network's to the rounding of their type: float32,
whose 3x3 convolutions take Winograd's products, or bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from amn_dist.models.backbones import caffe_resnet, resnet
from amn_dist.models.backbones.blueprint import EPSILON, FixedBatchNorm
from amn_dist.ops.winograd import can_use_winograd, winograd_conv, winograd_weights

Layer = tuple[nn.Conv2d, FixedBatchNorm | None]


@dataclass(frozen=True)
class Forms:
    """What fused layers are made of. conv: of a layer, relu=...: x to a map. total: of a layer: x and a map, to which
    it may write, to a map."""

    conv: Callable[..., nn.Module]
    total: Callable[[Layer], nn.Module]


class FusedConv(nn.Module):
    """Convolution and bias, then ReLU if there is one."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Layer, *, relu: bool, precision: torch.dtype) -> None:
        super().__init__()
        weight, bias = folded(*layer)
        self.relu = relu
        self.geometry = geometry(layer[0])
        self.winograd = precision == torch.float32 and can_use_winograd(layer[0])
        self.register_buffer("weight", winograd_weights(weight) if self.winograd else weight.to(precision))
        self.register_buffer("bias", bias.to(precision))

    def forward(self, x: Tensor) -> Tensor:
        if self.winograd:
            return winograd_conv(x, self.weight, self.bias, relu=self.relu, dilation=self.geometry[2][0])
        activation = "relu" if self.relu else "none"
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, activation, [], ""
        )
        return out


class FusedSum(nn.Module):
    """Convolution and bias added to a map, then ReLU; the sum overwrites the map."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Layer, *, precision: torch.dtype) -> None:
        super().__init__()
        weight, bias = folded(*layer)
        self.geometry = geometry(layer[0])
        self.register_buffer("weight", weight.to(precision))
        self.register_buffer("bias", bias.to(precision))

    def forward(self, x: Tensor, total: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise_(
            total, x, self.weight, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )
        return out


class FusedBlock(nn.Module):
    """Residual block of three convolutions; without a projection its input is overwritten by its output."""

    def __init__(self, layers: tuple[Layer, Layer, Layer], shortcut: nn.Module, forms: Forms) -> None:
        super().__init__()
        self.reduce, self.conv3x3 = (forms.conv(layer, relu=True) for layer in layers[:2])
        self.increase = forms.total(layers[2])
        self.shortcut = forms.conv(_layer(shortcut), relu=False) if isinstance(shortcut, nn.Sequential) else shortcut

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv3x3(self.reduce(x))
        out: Tensor = self.increase(branch, self.shortcut(x))
        return out


def cpu_forms(precision: torch.dtype) -> Forms:
    """The layers of a CPU, their weights in this type."""
    return Forms(partial(FusedConv, precision=precision), partial(FusedSum, precision=precision))


def fuse(network: nn.Module, forms: Forms) -> None:
    """Rewrite, in place, every layer of a float32 network that has a fused form."""
    for name, child in network.named_children():
        block = _fused_block(child, forms)
        if block is None:
            fuse(child, forms)
        else:
            setattr(network, name, block)
    if isinstance(network, (nn.Sequential, nn.ModuleDict)):
        _fuse_chain(network, forms)


def folded(conv: nn.Conv2d, norm: FixedBatchNorm | None) -> tuple[Tensor, Tensor]:
    """Weight f32[O, I, k, k] in channels_last and bias f32[O] that do the work of a convolution and its norm."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(len(weight)).double() if conv.bias is None else conv.bias.detach().double()
    if norm is not None:
        gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + EPSILON)
        weight, bias = weight * gain[:, None, None, None], (bias - norm.running_mean) * gain + norm.bias.detach()
    return weight.float().contiguous(memory_format=torch.channels_last), bias.float()


def _fused_block(module: nn.Module, forms: Forms) -> FusedBlock | None:
    if isinstance(module, resnet.Bottleneck):
        layers = ((module.conv1, module.bn1), (module.conv2, module.bn2), (module.conv3, module.bn3))
        return FusedBlock(layers, module.downsample, forms)
    if isinstance(module, caffe_resnet.CaffeBottleneck):
        reduce, conv3x3, increase = (_layer(part) for part in (module.reduce, module.conv3x3, module.increase))
        return FusedBlock((reduce, conv3x3, increase), module.shortcut, forms)
    return None


def _layer(sequence: nn.Module) -> Layer:
    conv, norm = sequence.children()
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, FixedBatchNorm)
    return conv, norm


def _fuse_chain(chain: nn.Sequential | nn.ModuleDict, forms: Forms) -> None:
    """Fuse convolution, norm and ReLU that follow each other; what is fused away leaves an identity behind its name."""
    names, modules = zip(*chain.named_children(), strict=True) if len(chain) else ((), ())
    for index, conv in enumerate(modules):
        if not isinstance(conv, nn.Conv2d):
            continue
        tail = modules[index + 1 : index + 3]
        norm = tail[0] if tail and isinstance(tail[0], FixedBatchNorm) else None
        rest = tail[1:] if norm is not None else tail
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        for name in names[index + 1 : index + 1 + (norm is not None) + relu]:
            setattr(chain, name, nn.Identity())
        if norm is not None or relu:
            setattr(chain, names[index], forms.conv((conv, norm), relu=relu))


def geometry(conv: nn.Conv2d) -> tuple[list[int], list[int], list[int], int]:
    """Padding, stride, dilation and groups, as operations want them."""
    assert not isinstance(conv.padding, str)
    return list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
