"""Trained networks made ready to infer: where they lie, what they compute in, which layers are rewritten."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from amn_dist.models.allocator import keep_freed_memory
from amn_dist.models.aspp import Aspp
from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.fused import fuse
from amn_dist.models.fused_device import CastBackbone, device_forms
from amn_dist.models.half_head import HalfAspp
from amn_dist.models.weights import load_network
from amn_dist.ops.transfer import inference_device

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Infer

Network = TypeVar("Network", bound=nn.Module)

ACCELERATOR_PIXELS = 8 * 2**20
"""Default of infer.batch_pixels where an accelerator computes."""


class MixedBackbone(nn.Module):
    """A backbone in half precision on a CPU that hands its taps on in float32, so that heads and merging keep to it."""

    def __init__(self, backbone: Backbone, precision: torch.dtype) -> None:
        super().__init__()
        self.inner, self.precision = backbone, precision
        self.strides, self.colour = backbone.strides, backbone.colour

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(x.device.type, dtype=self.precision):
            return tuple(tap.float() for tap in self.inner(x))


def load_for_inference(
    network: Network, path: str | os.PathLike[str], *, precision: torch.dtype = torch.float32
) -> Network:
    """Fill a network from a file of save_network, ready to infer on the accelerator if there is one."""
    return prepare(load_network(network, path), inference_device(), precision=precision)


def prepare(network: Network, device: torch.device | str, *, precision: torch.dtype = torch.float32) -> Network:
    """Make a trained network with a `backbone` ready to infer, in place; it can no longer be trained or saved.

    precision: bf16 computes the backbone in it, and on a device a dilated head in float16. Layers are fused in the form
    of the device (models/fused.py, models/fused_device.py), on a CPU in float32 alone.
    """
    network = network.eval().requires_grad_(False)
    if torch.device(device).type != "cpu":
        if precision == torch.float32:
            fuse(network, device_forms(precision))
        else:
            network.backbone = CastBackbone(network.backbone, precision)  # type: ignore[arg-type]
            if isinstance(head := getattr(network, "aspp", None), Aspp):
                network.aspp = HalfAspp(head)
    elif precision != torch.float32:
        network.backbone = MixedBackbone(network.backbone, precision)  # type: ignore[arg-type]
    elif torch.backends.mkldnn.is_available():
        fuse(network)
        keep_freed_memory()
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def batch_pixels(section: Infer, network: nn.Module) -> int:
    """Pixels a forward pass of this network may take: as configured, or what suits its device."""
    return section.batch_pixels or (1 if device_of(network).type == "cpu" else ACCELERATOR_PIXELS)
