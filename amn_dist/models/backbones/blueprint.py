"""What an architecture hands over to become a backbone, and the norm layer the published networks share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5
"""Added to the running variance, as in torchvision and deeplab-pytorch."""

RESIDUAL_GAIN = 0.25
"""Initial gain of the last norm of a residual branch: keeps random networks without batch statistics from exploding."""


@dataclass(frozen=True)
class Blueprint:
    """Layers of a feature extractor in order, by name, and where its five taps are taken.

    ends: name of the layer whose output is tap 1 to 5. channels: of each tap. strides: pixels per cell of each tap,
    a tap of an image of n pixels having about n / stride cells.
    """

    layers: dict[str, nn.Module]
    ends: tuple[str, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]


class FixedBatchNorm(nn.Module):
    """Batch norm that always uses its stored statistics and never updates them (amn 2.1).

    Gain and shift are ordinary parameters; trainable=False keeps them as loaded (amn 2.6). gain: initial value.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, gain: float = 1.0, trainable: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), gain), requires_grad=trainable)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=trainable)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON)


def initialise_convolutions(layers: dict[str, nn.Module]) -> None:
    """Draw every convolution from N(0, 2 / fan_out), biases zero, for runs without pretrained weights."""
    for layer in layers.values():
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
